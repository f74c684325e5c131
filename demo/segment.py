"""A pipeline on one picture: prints what it found and writes an outlined copy."""
import sys

from modelscope.pipelines import pipeline
from PIL import Image

import modelscope_fastinst
from modelscope_fastinst.data.image import read_image
from modelscope_fastinst.data.microscope import draw_nuclei
from modelscope_fastinst.visualize import draw_instances

if __name__ == '__main__':
    image = read_image(sys.argv[1]) if len(sys.argv) > 1 else draw_nuclei().image
    segment = pipeline('image-segmentation', model=modelscope_fastinst.default_model())
    found = segment(image[:, :, ::-1])   # ModelScope takes arrays as BGR
    for score, label, box in zip(found['scores'], found['labels'], found['boxes']):
        print(f'{label} {score:.2f} at {[round(side) for side in box]}')
    picture = draw_instances(image, found['scores'], found['labels'], found['masks'], found['boxes'])
    Image.fromarray(picture).save('outlined.png')
    print('outlined.png')
