"""Draws a training's log: losses, learning rate, and average precision where it was measured."""
import sys

from modelscope_fastinst.plugin.curves import write_curves

if __name__ == '__main__':
    work_dir = sys.argv[1] if len(sys.argv) > 1 else 'work_dir'
    picture = write_curves(work_dir)
    if picture is None:
        sys.exit(f'{work_dir}: no log.jsonl with a record; name the work folder of a training')
    print(picture)
