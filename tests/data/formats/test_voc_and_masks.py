"""Maps of object numbers, and one picture an object."""
from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as coco_mask

from modelscope_fastinst.data.coco import CocoInstances
from modelscope_fastinst.data.formats import read_source, recognise
from modelscope_fastinst.data.formats.instance_maps import encode_map, read_map
from modelscope_fastinst.data.formats.voc import _palette
from modelscope_fastinst.data.records import DatasetError
from tests.data.formats.tool_files import Picture, expected, mask_pictures, truth, write_object_masks, write_voc

PICTURES = mask_pictures(2)


def read(folder, **options):
    return CocoInstances.from_source(read_source(folder), check_images=True, **options)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 4)))
def test_a_map_is_encoded_as_pycocotools_encodes_its_masks(numbers):
    encoded = encode_map(numbers)
    assert list(encoded) == [value for value in np.unique(numbers).tolist() if value]
    for value, rle in encoded.items():
        wanted = coco_mask.encode(np.asfortranarray(numbers == value).view(np.uint8))
        assert rle == {'size': wanted['size'], 'counts': wanted['counts'].decode()}


def test_black_and_white_pictures_are_maps_too(tmp_path):
    """PIL gives such a picture as booleans that are 255 inside."""
    mask = PICTURES[0].objects[0][1]
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    assert list(encode_map(read_map(tmp_path / 'mask.png', 'mask'))) == [1]


@pytest.mark.parametrize('classes', [
    pytest.param('class_names.txt', id='names of the values'), pytest.param('xml', id='XML, by the number')])
@pytest.mark.parametrize('deep', [pytest.param(False, id='palette'), pytest.param(True, id='16 bits')])
def test_where_classes_are_named(tmp_path, classes, deep):
    write_voc(tmp_path, PICTURES, classes=classes, deep=deep)
    data = read(tmp_path)
    assert data.classes == ['fig', 'nut'] and truth(data) == expected(PICTURES)


def test_values_without_names_and_no_values_at_all(tmp_path):
    write_voc(tmp_path, PICTURES, classes='values')
    assert read(tmp_path).classes == ['class 1', 'class 2']
    shutil.rmtree(tmp_path / 'SegmentationClass')
    data = read(tmp_path)
    assert data.classes == ['object'] and [len(one) for one in truth(data).values()] == [3, 3]


def test_more_objects_than_a_byte_counts(tmp_path):
    picture = Picture('grid.png', np.zeros((40, 60, 3), np.uint8), [])
    for number in range(300):
        mask = np.zeros((40, 60), bool)
        mask[2 * (number // 30), 2 * (number % 30)] = True
        picture.objects.append(('dot', mask))
    write_voc(tmp_path, [picture], deep=True)
    assert truth(read(tmp_path)) == expected([picture])


def test_coloured_maps_of_cvat(tmp_path):
    """Colours instead of numbers: objects in VOC's palette, classes in that of labelmap.txt."""
    write_voc(tmp_path, PICTURES, classes=None)
    (tmp_path / 'labelmap.txt').write_text('# label:color_rgb:parts:actions\nnut:10,20,30::\nbackground:0,0,0::\n'
                                           'fig:200,0,1::\n', 'utf-8')
    palette = np.array([[color >> 16, color >> 8 & 255, color & 255] for color in _palette()], np.uint8)
    (tmp_path / 'SegmentationClass').mkdir()
    for picture in PICTURES:
        file = tmp_path / 'SegmentationObject' / picture.name
        numbers = np.asarray(Image.open(file))
        Image.fromarray(palette[numbers]).save(file)
        kinds = np.zeros((*picture.size, 3), np.uint8)
        for name, mask in picture.objects:
            kinds[mask] = (10, 20, 30) if name == 'nut' else (200, 0, 1)
        Image.fromarray(kinds).save(tmp_path / 'SegmentationClass' / picture.name)
    data = read(tmp_path)
    assert data.classes == ['nut', 'fig'] and truth(data) == expected(PICTURES)


def test_the_palette_is_that_of_voc():
    assert [f'{color:06x}' for color in _palette()[:10]] == [
        '000000', '800000', '008000', '808000', '000080', '800080', '008080', '808080', '400000', 'c00000']
    assert f'{_palette()[255]:06x}' == 'e0e0c0' and len(set(_palette())) == 256


def test_void_is_no_object(tmp_path):
    write_voc(tmp_path, PICTURES)
    file = tmp_path / 'SegmentationObject' / 'IMG_0.png'
    numbers = np.array(Image.open(file))
    numbers[:2] = 255
    Image.fromarray(numbers).save(file)
    assert truth(read(tmp_path)) == expected(PICTURES)


def test_a_folder_of_each_split(tmp_path):
    write_voc(tmp_path / 'train', PICTURES[:1])
    write_voc(tmp_path / 'val', PICTURES[1:])
    assert [truth(CocoInstances.from_source(read_source(tmp_path, split))) for split in ('train', 'val')] == [
        expected(PICTURES[:1]), expected(PICTURES[1:])]


@pytest.mark.parametrize('spoil, item, message', [
    pytest.param(lambda root: (root / 'JPEGImages' / 'IMG_0.png').unlink(), 'image', 'no image IMG_0.* in JPEGImages',
                 id='no image'),
    pytest.param(lambda root: (root / 'SegmentationObject' / 'IMG_0.png').write_bytes(b'x'), 'image',
                 'is damaged, or no image', id='damaged map'),
    pytest.param(lambda root: Image.new('L', (60, 41)).save(root / 'SegmentationObject' / 'IMG_0.png'), 'image',
                 'its annotations are for 60 x 41', id='map of another size'),
    pytest.param(lambda root: Image.new('L', (60, 41)).save(root / 'SegmentationClass' / 'IMG_0.png'), 'image',
                 'is 60 x 41 pixels, the object map 60 x 40', id='class map of another size'),
    pytest.param(lambda root: Image.new('L', (60, 40)).save(root / 'SegmentationClass' / 'IMG_0.png'), 'object 1',
                 'has no class: SegmentationClass is background all over it', id='no class'),
    pytest.param(lambda root: Image.new('L', (60, 40), 9).save(root / 'SegmentationClass' / 'IMG_0.png'), 'object 1',
                 'has the unknown class 9', id='unknown class'),
    pytest.param(lambda root: (root / 'SegmentationClass' / 'IMG_0.png').unlink(), 'object 1',
                 'SegmentationClass has no file for this image', id='no class map'),
])
def test_bad_maps_are_named(tmp_path, spoil, item, message):
    write_voc(tmp_path, PICTURES)
    spoil(tmp_path)
    first = read_source(tmp_path).problems[0]
    assert (first.file, first.item) == (str(tmp_path / 'SegmentationObject' / 'IMG_0.png'), item)
    assert message in first.message
    assert truth(read(tmp_path, on_problem='skip'))['IMG_1'] == expected(PICTURES)['IMG_1']


def test_a_listed_image_without_a_map_is_named(tmp_path):
    write_voc(tmp_path, PICTURES, {'train': ['IMG_0', 'IMG_7'], 'val': ['IMG_1']})
    assert [(one.item, one.message) for one in read_source(tmp_path, 'train').problems] == [
        ('IMG_7', 'is listed, but there is no SegmentationObject/IMG_7.png')]


def test_an_xml_file_with_too_few_objects(tmp_path):
    write_voc(tmp_path, PICTURES, classes='xml')
    (tmp_path / 'Annotations' / 'IMG_0.xml').write_text('<annotation><object><name>nut</name></object></annotation>')
    assert [one.item for one in read_source(tmp_path).problems] == ['object 2', 'object 3']
    (tmp_path / 'Annotations' / 'IMG_0.xml').write_text('<annotation>')
    with pytest.raises(DatasetError, match=r'IMG_0.xml: is not valid XML'):
        read_source(tmp_path)


# one picture an object

def test_masks_without_folders_are_of_one_class(tmp_path):
    write_object_masks(tmp_path, PICTURES, 'stage1_train', by_class=False)
    (tmp_path / 'stage1_test' / 'IMG_9' / 'images').mkdir(parents=True)
    Image.new('L', (8, 8)).save(tmp_path / 'stage1_test' / 'IMG_9' / 'images' / 'IMG_9.png')
    assert recognise(tmp_path) == 'object-masks'
    source = read_source(tmp_path, 'train')
    assert source.classes == ['object'] and source.splits == ('train',) and len(source.content['images']) == 2
    assert 'not labelled: 1' in source.notes[0]
    assert {counts for _, counts in truth(CocoInstances.from_source(source))['IMG_0']} == {
        counts for _, counts in expected(PICTURES)['IMG_0']}


@pytest.mark.parametrize('change', [
    pytest.param(lambda mask: Image.fromarray(mask.astype(np.uint8)), id='ones'),
    pytest.param(lambda mask: Image.fromarray(mask), id='black and white'),
    pytest.param(lambda mask: Image.fromarray(mask.astype(np.uint8) * 255).convert('RGBA'), id='four channels'),
    pytest.param(lambda mask: Image.fromarray(mask.astype(np.uint16) * 65535), id='16 bits'),
    pytest.param(lambda mask: Image.fromarray(mask.astype(np.uint8) * 200 + 20), id='grey on grey'),
])
def test_masks_of_any_kind(tmp_path, change):
    write_object_masks(tmp_path, PICTURES)
    for file in tmp_path.rglob('masks/*/*.png'):
        change(np.asarray(Image.open(file)) != 0).save(file)
    assert truth(read(tmp_path)) == expected(PICTURES)


@pytest.mark.parametrize('spoil, item, message', [
    pytest.param(lambda file: Image.new('L', (60, 40)).save(file), 'mask', 'mask has no pixel', id='empty'),
    pytest.param(lambda file: Image.new('L', (61, 40), 1).save(file), 'mask',
                 'is 61 x 40 pixels (width x height), its image 60 x 40', id='another size'),
    pytest.param(lambda file: file.write_bytes(b''), 'mask', 'is damaged, or no image', id='damaged'),
])
def test_bad_masks_are_named(tmp_path, spoil, item, message):
    write_object_masks(tmp_path, PICTURES)
    file = tmp_path / 'IMG_1' / 'masks' / 'fig' / '0002.png'
    file = file if file.exists() else next((tmp_path / 'IMG_1' / 'masks').rglob('*.png'))
    spoil(file)
    with pytest.raises(DatasetError, match=re.escape(f'{file}: {item}: {message}')):
        read(tmp_path)
    assert len(truth(read(tmp_path, on_problem='skip'))['IMG_1']) == 2


def test_two_images_for_one_set_of_masks(tmp_path):
    write_object_masks(tmp_path, PICTURES)
    shutil.copy(tmp_path / 'IMG_0' / 'images' / 'IMG_0.png', tmp_path / 'IMG_0' / 'images' / 'copy.png')
    assert [str(one) for one in read_source(tmp_path).problems] == [
        f'{tmp_path / "IMG_0"}: image: 2 images beside masks/, there must be one']


@pytest.mark.parametrize('write, place', [
    pytest.param(write_voc, 'JPEGImages/IMG_0.jpg', id='voc'),
    pytest.param(write_object_masks, 'IMG_0/images/IMG_0.jpg', id='object-masks')])
@pytest.mark.parametrize('as_stored', [True, False])
def test_masks_say_how_a_picture_was_seen(tmp_path, write, place, as_stored):
    """EXIF orientation 6 on a picture stored 60 wide: drawn on as it is stored, or upright, 40 wide."""
    picture = mask_pictures(1, suffix='.jpg')[0]
    picture.objects = [(name, mask if as_stored else np.rot90(mask)) for name, mask in picture.objects]
    stored, size = picture.pixels, (40, 60) if as_stored else (60, 40)
    picture.pixels = np.zeros((*size, 3), np.uint8)
    write(tmp_path, [picture])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / place, exif=exif)
    data = read(tmp_path)
    assert data.sizes == [size] and data[0].image.shape[1:] == size
    assert truth(data)['IMG_0'] == sorted((name, rle['counts']) for name, rle in picture.masks())
