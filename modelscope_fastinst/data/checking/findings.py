"""The kinds of faults that a data set can have: how bad each is, what it is called, and what to do about it."""
from __future__ import annotations

from dataclasses import dataclass

# error: training fails or the measured AP is wrong; warning: most likely a mistake, or it costs accuracy;
# note: good to know, and often as it should be.
SEVERITIES = ('error', 'warning', 'note')


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        severity: one of ``SEVERITIES``.
        title: what the findings of this kind have in common.
        mend: what to do about one.
    """
    severity: str
    title: str
    mend: str


# In the order in which a report shows them. The codes are stable: programs may rely on them.
KINDS: dict[str, Kind] = {
    'bad-record': Kind('error', 'records that cannot be read',
                       'correct or remove them; --skip-bad of "train" and "data convert" leaves them out'),
    'bad-outline': Kind('error', 'objects whose outline cannot be drawn',
                        'draw them again or remove them; --skip-bad of "train" and "data convert" leaves them out'),
    'outside-image': Kind('error', 'objects that reach out of their image',
                          'clip their outlines to the image, or look whether they belong to another one'),
    'no-pixels': Kind('error', 'objects that cover no pixel',
                      'remove or enlarge them: nothing can match them, so they lower the AP'),
    'missing-image': Kind('error', 'images whose file is missing',
                          'put the files where they are looked for, or remove their records'),
    'unreadable-image': Kind('error', 'image files that cannot be read',
                             'copy them again from where they came from, or remove them'),
    'missing-map': Kind('error', 'images without their map',
                        'put the PNG where it is looked for, or remove the image; --skip-bad of "train" leaves it out'),
    'unreadable-map': Kind('error', 'maps that cannot be read', 'copy them again from where they came from'),
    'wrong-map': Kind('error', 'maps of another kind than is needed',
                      'panoptic PNGs have the ids of segments in three channels, label PNGs the class in one: write '
                      'the numbers, not colours'),
    'unlisted-id': Kind('error', 'maps with segments that the annotation file does not list',
                        'list them in segments_info, or make their pixels 0; --skip-bad of "train" takes them as void'),
    'absent-id': Kind('error', 'segments without a pixel in their map',
                      'remove them from segments_info; --skip-bad of "train" leaves them out'),
    'unknown-label': Kind('error', 'maps with values that are no class',
                          'name all classes, or say which values mean none (--label-offset, --void-label); --skip-bad '
                          'of "train" takes them as void'),
    'size-mismatch': Kind('error', 'images of another size than their annotations say',
                          'the picture was scaled after it was annotated: restore the one that was annotated'),
    'leakage': Kind('error', 'the same image in two splits',
                    'leave it in one of them: on an image that was trained on, measures are too high'),
    'class-missing-in-val': Kind('error', 'classes that the categories of the validation split do not list',
                                 'list the same categories in both splits, or choose classes with --classes'),
    'class-only-in-val': Kind('error', 'classes with objects in validation but none in training',
                              'move some of their images to the training split, or leave the class out: its AP can '
                              'only be 0'),
    'class-only-in-train': Kind('warning', 'classes with objects in training but none in validation',
                                'move some of their images to the validation split: their AP is not measured'),
    'orphan-annotation': Kind('warning', 'annotation files without an image',
                              'put the image where it is looked for, or remove the file: it is not used'),
    'similar-names': Kind('warning', 'classes whose names differ by case, spaces or punctuation only',
                          'give them one name, if they mean the same'),
    'unused-class': Kind('warning', 'classes without an object',
                         'remove them from the categories, or choose classes with --classes'),
    'image-twice': Kind('warning', 'the same image twice in one split',
                        'keep one of them; two records for one picture contradict each other'),
    'duplicate-object': Kind('warning', 'objects that are outlined twice', 'remove one of the two'),
    'two-classes': Kind('warning', 'outlines that have two classes', 'keep the one that is right'),
    'overlapping-objects': Kind('warning', 'objects of a class that cover much of each other',
                                'look whether they are one object that was outlined twice'),
    'nested-object': Kind('note', 'objects that lie within another one of their class',
                          'look whether the larger outline is that of a group: remove it, or make it a crowd region'),
    'box-mismatch': Kind('warning', 'objects whose box does not fit their outline',
                         'remove "bbox" from the annotation, it is then taken from the outline; the box AP uses it'),
    'area-mismatch': Kind('warning', 'objects whose area does not fit their outline',
                          'remove "area" from the annotation, it is then counted; AP by size uses it'),
    'stuff-in-parts': Kind('warning', 'images with several segments of a class that is stuff',
                           'make one segment of them; or, if the class counts objects, set its isthing to 1: a model '
                           'finds all of a stuff class as one segment, which matches none of the parts'),
    'too-many-objects': Kind('warning', 'images with more objects than the model has queries',
                             'raise model.decoder.num_queries, or cut the images into tiles'),
    'exif-ambiguous': Kind('warning', 'images with an EXIF rotation that their annotations may not know of',
                           'look at them on the sheet, and save the pictures upright if the outlines are turned'),
    'exif-rotated': Kind('note', 'images that are stored turned (EXIF)',
                         'nothing, if the outlines fit on the sheet of samples'),
    'empty-image': Kind('note', 'images without an object',
                        'nothing if that is true of the picture; training leaves out those whose annotations say so, '
                        'evaluation uses them'),
    'much-void': Kind('note', 'images of which more than half has no class',
                      'nothing if that is meant: from void nothing is learned, and it is not evaluated'),
    'unlisted-image': Kind('note', 'image files without an annotation record', 'annotate them, or leave them unused'),
    'tiny-object': Kind('note', 'objects smaller than a cell of the masks that the network predicts',
                        'a larger preprocessor.min_size, or images cut into tiles, makes them larger'),
    'odd-size': Kind('note', 'images of an unusual size', 'look whether they belong here'),
    'class-imbalance': Kind('note', 'classes that are rare beside others', 'more images of the rare ones, if possible'),
}

# Those that only maps (panoptic and semantic data) can have.
MAP_CODES = frozenset({'missing-map', 'unreadable-map', 'wrong-map', 'unlisted-id', 'absent-id', 'unknown-label',
                       'much-void', 'stuff-in-parts'})


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        code: the kind, a key of ``KINDS``.
        split: 'train', 'val', 'all' for data without splits, or '' where it concerns the data set.
        file: the annotation file, or the image file where that is at fault.
        item: what in it, e.g. ``annotation 4711``.
        message: what is the matter with it.
        image: file name of the image it is about, or ''.
    """
    code: str
    split: str
    file: str
    item: str
    message: str
    image: str = ''

    @property
    def severity(self) -> str:
        return KINDS[self.code].severity

    def to_json(self) -> dict[str, str]:
        """All of it, with severity and mend, as plain strings."""
        return {'severity': self.severity, 'code': self.code, 'split': self.split, 'file': self.file,
                'item': self.item, 'image': self.image, 'message': self.message, 'mend': KINDS[self.code].mend}
