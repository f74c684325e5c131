"""What is wrong with a data set, and what is in it; nothing here changes a file."""
from __future__ import annotations

from modelscope_fastinst.data.checking.check import check_data
from modelscope_fastinst.data.checking.findings import KINDS, SEVERITIES, Finding
from modelscope_fastinst.data.checking.maps import MapReport, MapSplit, check_maps
from modelscope_fastinst.data.checking.report import Report, SplitSummary

__all__ = ['KINDS', 'SEVERITIES', 'Finding', 'MapReport', 'MapSplit', 'Report', 'SplitSummary', 'check_data',
           'check_maps']
