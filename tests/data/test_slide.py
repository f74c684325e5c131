"""The drawn slide: nuclei where they were asked for."""
from __future__ import annotations

import numpy as np

from modelscope_fastinst.data.slide import draw_slide

PLACES = [(40.0, 50.0, 15.0), (40.0, 52.0, 15.0), (0.0, 120.0, 18.0)]


def test_nuclei_are_where_they_were_asked_for_and_shine():
    slide = draw_slide(80, 140, PLACES)
    assert slide.image.shape == (80, 140, 3) and slide.image.dtype == np.uint8 and slide.labels.dtype == np.int32
    assert slide.labels[40, 45] == 1 and slide.labels[2, 120] == 3 and slide.labels[79, 0] == 0
    assert (slide.image == slide.image[:, :, :1]).all()
    assert slide.image[slide.labels == 1].mean() > 2 * slide.image[slide.labels == 0].mean()


def test_of_nuclei_that_overlap_the_first_is_whole():
    alone, crowded = draw_slide(80, 140, PLACES[:1]).labels, draw_slide(80, 140, PLACES).labels
    np.testing.assert_array_equal(crowded == 1, alone == 1)
    assert 0 < (crowded == 2).sum() < (alone == 1).sum()


def test_equal_seeds_draw_equal_slides():
    assert (draw_slide(50, 60, PLACES, 3).image == draw_slide(50, 60, PLACES, 3).image).all()
    assert (draw_slide(50, 60, PLACES, 3).image != draw_slide(50, 60, PLACES, 4).image).any()
