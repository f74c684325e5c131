"""What every evaluator does with the images it is given: keep what counts of each, once, and merge with others."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelscope_fastinst.evaluation.class_names import checked_classes
from modelscope_fastinst.evaluation.evidence import rising


class Gathering:
    """Images under the data set's own ids, with what is kept of each (anything that has ``nbytes``).

    It can be pickled, so that processes can send theirs to one that merges them.

    Args:
        classes: class names in the order of the class indices.
        worst: keeps the worst images as a whole.

    Raises:
        ValueError: no classes, or a name that comes twice.
    """

    _alike: tuple[str, ...] = ('classes',)   # what evaluators must have in common to be merged

    def __init__(self, classes: Sequence[str], worst: Any) -> None:
        self.classes = checked_classes(classes)
        self.worst = worst
        self._images: dict[Any, Any] = {}

    def __len__(self) -> int:
        """Number of different images."""
        return len(self._images)

    def __contains__(self, image_id: Any) -> bool:
        return image_id in self._images

    @property
    def nbytes(self) -> int:
        """Bytes kept of all images, without the worst images' masks or maps."""
        return sum(image.nbytes for image in self._images.values())

    def merge(self, other: Gathering) -> None:
        """Take in what another evaluator of the same kind has gathered; images that both have count once.

        Raises:
            ValueError: it is of other classes, say; names what differs.
        """
        for name in self._alike:
            own, theirs = getattr(self, name), getattr(other, name)
            if own != theirs:
                raise ValueError(f'evaluators to merge must have the same {name}; got {own} and {theirs}')
        for image_id, image in other._images.items():
            self._images.setdefault(image_id, image)
        self.worst.merge(other.worst)

    def images(self) -> list[Any]:
        """What was kept of each image, by rising id: pycocotools' order, which decides between equal scores; and sums
        are the same whatever the order of adding.

        Raises:
            ValueError: no image was added.
        """
        if not self._images:
            raise ValueError('there is nothing to evaluate: no image was added')
        return [self._images[image_id] for image_id in sorted(self._images, key=rising)]
