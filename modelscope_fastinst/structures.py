"""The few plain dataclasses that carry tensors from one room to another.

Notation, used in every docstring of the project: B batch, Q object queries, K classes, N objects of one image,
H x W an image's size in pixels, Hc x Wc the padded canvas of a batch, h x w the size of the mask logits
(the finest feature map, stride 8 in the published models).
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# What a model can be trained for (``model.task``), and what its weights can then be asked for.
TASKS = {'instance': ('instance',), 'semantic': ('semantic',), 'panoptic': ('panoptic', 'instance', 'semantic')}


@dataclass
class Target:
    """The ground truth of one training image.

    Attributes:
        labels: int64 ``[N]``, contiguous class indices in ``[0, K)``.
        masks: bool ``[N, H, W]``, one mask an object; all-zero masks (objects lost to a crop) are allowed.
        canvas: (height, width) in pixels of the batch's canvas, at whose top left the image lies; None: its own size.
    """
    labels: Tensor
    masks: Tensor
    canvas: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.masks.ndim != 3 or self.labels.ndim != 1 or len(self.labels) != len(self.masks):
            raise ValueError(f'a target needs labels [N] and masks [N, H, W]; got {tuple(self.labels.shape)} '
                             f'and {tuple(self.masks.shape)}')

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: Any, non_blocking: bool = False) -> Target:
        """The same target on another device."""
        return replace(self, labels=self.labels.to(device, non_blocking=non_blocking),
                       masks=self.masks.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Target:
        """The same target in memory that a GPU copies from by itself; what a DataLoader with ``pin_memory`` calls."""
        return replace(self, labels=self.labels.pin_memory(), masks=self.masks.pin_memory())

    def on_canvas(self, height: int, width: int) -> Target:
        """The same target, the same masks, on a canvas of ``height x width`` pixels.

        Raises:
            ValueError: the masks are larger than the canvas.
        """
        if self.masks.shape[1] > height or self.masks.shape[2] > width:
            raise ValueError(f'a target with masks of {self.masks.shape[1]} x {self.masks.shape[2]} pixels does not '
                             f'fit on a canvas of {height} x {width}')
        return replace(self, canvas=(height, width))

    def pad_to(self, height: int, width: int) -> Target:
        """The same target with masks zero-padded at the bottom and the right to ``height x width`` pixels."""
        from torch.nn.functional import pad
        missing = (height - self.masks.shape[1], width - self.masks.shape[2])
        if missing == (0, 0):
            return self
        return replace(self, masks=pad(self.masks, (0, missing[1], 0, missing[0])))


@dataclass
class Sample:
    """One image on its way to the network, with whatever is known about it.

    Attributes:
        image: uint8 ``[3, H, W]``, RGB, at the size at which the network is to see it.
        target: ground truth at the same size, or None for inference.
        image_id: the data set's own id of the image (COCO's ``images[].id``).
        file_name: where the image came from, for messages.
        original_size: (height, width) in pixels of the image as it was stored (EXIF orientation applied); results are
            given at this size.
        annotations: for evaluation, the image's ground truth as COCO-style records, crowds included: dicts with
            ``category_id`` (contiguous class index), ``segmentation`` (compressed RLE at ``original_size``), ``area``,
            ``bbox`` (xywh), ``iscrowd``.
        truth: for the evaluation of panoptic and of semantic segmentation, the image's ground truth at
            ``original_size``.
    """
    image: Tensor
    target: Target | None = None
    image_id: Any = None
    file_name: str = ''
    original_size: tuple[int, int] = (0, 0)
    annotations: list[dict] = field(default_factory=list)
    truth: PanopticMap | SemanticMap | None = None


@dataclass
class PixelFeatures:
    """What a pixel decoder gives a transformer decoder.

    Attributes:
        maps: three maps ``[B, C, Hc / s, Wc / s]``, coarsest first (strides s of 32, 16, 8 in the published models).
        mask_features: ``[B, M, Hc / s, Wc / s]``, whose dot products with mask embeddings are mask logits (stride 4 in
            Mask2Former); None where the decoder makes its own from the finest map.
    """
    maps: list[Tensor]
    mask_features: Tensor | None = None


@dataclass
class Prediction:
    """What one set of heads says.

    Attributes:
        logits: class logits ``[B, Q, K + 1]`` (the last class is "no object"), or None where only masks were asked for.
        masks: mask logits ``[B, Q, h, w]``, on the padded canvas.
    """
    logits: Tensor | None
    masks: Tensor


@dataclass
class NetworkOutput:
    """Everything a forward pass of the network gives.

    Attributes:
        final: class and mask logits of the last decoder layer.
        auxiliary: the other heads in the authors' order: guided layers 0..L-1 (training with ground-truth guidance
            only), initial heads, layers 0..L-2. Without guidance, as in inference, initial heads and layers only; in
            inference of Mask2Former's decoder none, for their masks would take ten times the memory.
        canvas: (height, width) in pixels of the padded batch; mask logits cover exactly this area.
        sizes: (height, width) in pixels of each image on that canvas, placed at the top left.
        proposal_logits: ``[B, K + 1, h16, w16]``, the query proposal's class logits; None where queries are not picked
            from pixels but learnt.
        query_locations: float ``[B, Q, 2]``, (x, y) in [0, 1] of the canvas, where queries were picked; training only,
            and None where they are learnt.
        guided_matching: per image the (query indices, object indices) that the guided heads are supervised with; None
            where there are no guided heads.
    """
    final: Prediction
    auxiliary: list[Prediction]
    canvas: tuple[int, int]
    sizes: list[tuple[int, int]]
    proposal_logits: Tensor | None = None
    query_locations: Tensor | None = None
    guided_matching: list[tuple[Tensor, Tensor]] | None = None


@dataclass
class Instances:
    """The instances found in one image, best first.

    Attributes:
        scores: float32 ``[N]`` in [0, 1], class probability times mask quality.
        labels: int64 ``[N]``, class indices in ``[0, K)``.
        masks: uint8 ``[N, H, W]`` of 0 and 1 at the image's original size, or a list of N COCO RLE dicts
            (``{'size': [H, W], 'counts': str}``).
        boxes: float32 ``[N, 4]``, xyxy in pixels, tight around the mask (right and bottom exclusive); zeros for an
            empty mask.
        classes: the names of the model's classes, which ``labels`` are indices of; None where nobody said.
    """
    scores: Any
    labels: Any
    masks: Any
    boxes: Any
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def from_result(cls, result: Mapping[str, Any], classes: Sequence[str] | None = None) -> Instances:
        """The instances of what ``pipeline('image-segmentation')`` returned for one image.

        Args:
            result: ``scores``, ``labels`` (names), ``masks`` (uint8 ``[H, W]`` arrays or COCO RLE dicts) and ``boxes``,
                one entry an instance.
            classes: the names of the model's classes, which then have the indices that they have in the model. None:
                the names of this result, in the order in which they appear.

        Raises:
            ValueError: a list is missing or of another length, a label is not in ``classes``, or masks differ in kind
                or size; names what and where.
        """
        from modelscope_fastinst.exchange import from_result
        return cls(**from_result(result, classes))

    def to_coco(self, image_id: int | str = 0,
                category_ids: Sequence[int] | Mapping[str, int] | None = None) -> list[dict[str, Any]]:
        """The instances as records of a COCO results file, which ``json`` writes as they are.

        Args:
            image_id: COCO's ``images[].id``.
            category_ids: the data set's ids, by label (a sequence) or by class name (a mapping). None: label + 1, so
                that the first class has the id 1, as files with ids without gaps have it (not COCO's own 80 classes).

        Returns:
            For each instance ``image_id``, ``category_id``, ``category_name`` (where ``classes`` says it), ``bbox``
            (xywh in pixels), ``area`` (pixels), ``score`` and ``segmentation`` (compressed RLE whose counts are text).

        Raises:
            ValueError: a label or name that ``category_ids`` does not have; or names are asked for and not known.
        """
        from modelscope_fastinst.exchange import to_coco
        return to_coco(self, image_id, category_ids)

    def to_supervision(self) -> Any:
        """The instances as ``supervision.Detections`` (https://supervision.roboflow.com): ``xyxy``, ``mask`` (bool
        ``[N, H, W]``), ``confidence``, ``class_id``, and the names as ``data['class_name']`` where they are known.

        Raises:
            ImportError: supervision is not installed; names the command that installs it.
        """
        from modelscope_fastinst.exchange import to_supervision
        return to_supervision(self)


@dataclass
class Segment:
    """One segment of a panoptic map.

    Attributes:
        id: its value in the map, at least 1.
        label: class index in ``[0, K)``.
        score: in [0, 1], the class probability of the query that it comes from; 1 in ground truth.
        isthing: whether its class counts objects ("thing") or is amorphous ("stuff": one segment an image and class).
        area: in pixels.
        bbox: (x, y, width, height) in whole pixels, tight, as COCO panoptic files have it.
        iscrowd: ground truth only: a region of several objects, which is not evaluated.
    """
    id: int
    label: int
    score: float
    isthing: bool
    area: int
    bbox: tuple[int, int, int, int]
    iscrowd: bool = False


@dataclass
class PanopticMap:
    """Every pixel of an image in at most one segment.

    Attributes:
        ids: int32 ``[H, W]``, numpy: the pixels' segment ids; 0 where there is none (void).
        segments: one for each id of the map, by ascending id.
    """
    ids: Any
    segments: list[Segment]


# What stands in a ``SemanticMap`` for pixels of no class. Files write 255 (or 0) for it; here it is no class index.
VOID = -1


@dataclass
class SemanticMap:
    """Every pixel of an image in one class.

    Attributes:
        labels: int16 ``[H, W]``, numpy: class indices in ``[0, K)``; ``VOID`` (-1) where ground truth has no class,
            which is not evaluated. Results have a class everywhere.
        scores: float32 ``[K]``, numpy, in results: the mean score of each class over its pixels, 0 where it has none.
            A sum over queries, which may exceed 1.
    """
    labels: Any
    scores: Any = None
