"""The studio as ModelScope's hub runs it; on a machine of your own: modelscope-fastinst studio."""
from pathlib import Path

from modelscope_fastinst.studio.hosted import run

if __name__ == '__main__':
    run(Path(__file__).resolve().parent)
