"""``python -m modelscope_fastinst``: the command line."""
import sys

from modelscope_fastinst.cli import main

sys.exit(main())
