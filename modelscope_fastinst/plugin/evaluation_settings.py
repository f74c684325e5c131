"""The settings of the ``evaluation`` section that say how, and what comes of it besides numbers."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from modelscope_fastinst.evaluation.matching import check_engine

from .trainer_keys import ConfigurationError

DEFAULT_WORST = 20


def check_evaluation(section: Mapping[str, Any] | None, file: str = 'configuration.json') -> None:
    """Raises a ConfigurationError for an engine, views or a report that cannot be."""
    section = section or {}
    if section.get('engine') is not None:
        try:
            check_engine(section['engine'])
        except (ImportError, ValueError) as error:
            raise ConfigurationError(f'{file}: evaluation.engine: {error}') from error
    if section.get('thresholds') not in (None, True, False):
        raise ConfigurationError(f'{file}: evaluation.thresholds must be true or false; got {section["thresholds"]!r}')
    if section.get('boundary') not in (None, True, False):
        raise ConfigurationError(f'{file}: evaluation.boundary must be true or false; got {section["boundary"]!r}')
    report = section.get('report')
    if report not in (None, True, False):
        worst = report.get('worst', 0) if isinstance(report, Mapping) and not set(report) - {'worst'} else None
        if isinstance(worst, bool) or not isinstance(worst, int) or worst < 0:
            raise ConfigurationError(f'{file}: evaluation.report must be false, or {{"worst": N}} with N a whole '
                                     f'number of at least 0; got {report!r}')
    views_of(section, file)


def worst_of(section: Mapping[str, Any] | None) -> int | None:
    """How many of the worst images the report shows; None for no report."""
    report = (section or {}).get('report')
    if report is False:
        return None
    return report.get('worst', DEFAULT_WORST) if isinstance(report, Mapping) else DEFAULT_WORST


def views_of(section: Mapping[str, Any] | None, file: str = 'configuration.json') -> list[tuple[float, bool]] | None:
    """``evaluation.tta`` as pairs of scale and flip, the plain view first; None without it.

    A list of scales alone is mirrored as well. A scale up to 8 is a factor on the image as the preprocessor resizes it,
    a larger one a short side in pixels.

    Raises:
        ConfigurationError: another form, or a scale that is none.
    """
    tta = (section or {}).get('tta')
    if tta in (None, False):
        return None
    tta = {} if tta is True else {'scales': tta} if isinstance(tta, (list, tuple)) else tta
    scales = tta.get('scales', (1.0,)) if isinstance(tta, Mapping) and not set(tta) - {'scales', 'flip'} else None
    if (not isinstance(scales, Sequence) or isinstance(scales, str) or not scales
            or tta.get('flip', True) not in (True, False)
            or any(isinstance(scale, bool) or not isinstance(scale, Real) or not 0.1 <= scale <= 10_000
                   for scale in scales)):
        raise ConfigurationError(f'{file}: evaluation.tta must be {{"scales": [...], "flip": true or false}}, scales '
                                 f'being factors (0.1 to 8) or short sides in pixels; got {tta!r}')
    return [(float(scale), flipped) for flipped in ((False, True) if tta.get('flip', True) else (False,))
            for scale in scales]


def forget_thresholds(cfg: Any, classes: Sequence[str]) -> None:
    """Takes score thresholds by class name out of a configuration if they are of other classes than these.

    They were found for the scores of the model that a training starts from, whose classes give way to the data's.
    """
    thresholds = cfg.safe_get('postprocessor.score_thr')
    if isinstance(thresholds, Mapping) and not set(thresholds) <= set(classes):
        del cfg.postprocessor['score_thr']
