"""Packaging: what is installed, and what each requirement is for."""
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION_FILE = (HERE / 'modelscope_fastinst' / 'version.py').read_text('utf-8')
VERSION = re.search(r"__version__ = '([^']+)'", VERSION_FILE).group(1)

# The README, as an index of packages can show it: without pictures and links that lead into the repository.
DESCRIPTION = (HERE / 'README.md').read_text('utf-8')
DESCRIPTION = re.sub(r'^!\[[^\]]*\]\((?!https?:)[^)]*\)\n+', '', DESCRIPTION, flags=re.MULTILINE)
DESCRIPTION = re.sub(r'\[([^\]]*)\]\((?!https?:)[^)]*\)', r'\1', DESCRIPTION)

CORE = [
    # the networks, their training and their export. No build is chosen here: CPU, CUDA and ROCm ones all serve
    'torch>=2.6',
    # colour jitter and grey conversion of the training augmentation. Each torchvision release asks for exactly one
    # torch release, so that installing both in one command gives a pair that fits; it is imported where it is used
    'torchvision>=0.21',
    # pipeline(), Model, EpochBasedTrainer, the registries and the hub client that this package plugs into. The plugin
    # uses private parts of these, hence the upper bound; the extra brings what `modelscope.pipelines` imports
    'modelscope[framework]>=1.40.2,<1.41',
    # imported by `modelscope.msdatasets`; ModelScope 1.40 works with these releases and says so itself
    'datasets>=4.0.0,<=4.8.4',
    # ModelScope's trainer imports distutils, which Python 3.12 dropped and setuptools brings back
    'setuptools',
    # the progress bar of a training on a terminal; modelscope asks for it as well
    'tqdm',
    # images and masks outside the network
    'numpy>=1.24',
    # the Hungarian algorithm (linear_sum_assignment); filters of the drawn demo image
    'scipy>=1.10',
    # COCO's run-length encoding and COCO's AP; 2.0.8 is the first release for numpy 2
    'pycocotools>=2.0.8',
    # model.safetensors: weights that hold no code
    'safetensors>=0.4.3',
    # reading, resizing and writing images; the authors resize with it, to the digit
    'Pillow>=10.0',
    # the front matter of model cards; ModelScope's framework extra brings it as well
    'PyYAML>=5.4',
    # outlines in pictures of results, and nothing else. The headless build, because the plain one wants libGL, which
    # servers lack
    'opencv-python-headless>=4.9',
    # curves of losses and AP, precision-recall curves and confusion matrices, written as pictures while a model trains
    'matplotlib>=3.8',
]

TEST = [
    'pytest>=8.0',         # the test runner
    'hypothesis>=6.100',   # properties of geometry and file formats
    'ruff>=0.9',           # style; part of `make test`
    # its Mask2Former and Swin, to which ours must be equal; ModelScope's framework extra brings it as well
    'transformers>=5.0',
    'timm>=1.0',           # its resnet50d, whose weights the R50-d-DCN models start from: the tests read them
    'tensorboard>=2.15',   # train.tensorboard
    'faster-coco-eval>=1.6',  # evaluation.engine: the same averages, sooner
    'pytest-xdist>=3.5',   # two tests at a time
    'playwright>=1.45',    # drives a headless Chromium through the studio; slow tests only
]

VIDEO = [
    # reads and writes video files, frame by frame with their time stamps. BSD; the FFmpeg in its wheels has GPL parts,
    # none of which is required: encoders are taken as they are found
    'av>=14.0',
]

DEMO = [
    *VIDEO,
    # the studio's pages. 6.27 is the first with all that they use; releases before 6.20 follow a visitor's link to
    # addresses that only the server can reach
    'gradio>=6.27,<7',
]

SUPERVISION = ['supervision>=0.25']   # Instances.to_supervision(): its result type, for who draws and counts with it

EXTRAS = {
    'demo': DEMO,
    'video': VIDEO,
    'supervision': SUPERVISION,
    'test': [*TEST, *DEMO, *SUPERVISION],
    'dev': [
        *TEST, *DEMO, *SUPERVISION,
        'build>=1.2',      # wheels and source archives for a release
    ],
    # train.tensorboard: the log for TensorBoard beside our own
    'tensorboard': ['tensorboard>=2.15'],
    # evaluation.engine "faster-coco-eval": the same averages, sooner
    'fast-eval': ['faster-coco-eval>=1.6'],
}

setup(
    name='modelscope-fastinst',
    version=VERSION,
    description='FastInst instance segmentation for ModelScope: inference, training and evaluation',
    long_description=DESCRIPTION,
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10',
    # the configurations lie at the top, where people look for them, and are installed as a part of the package
    packages=[*find_packages(include=['modelscope_fastinst', 'modelscope_fastinst.*']), 'modelscope_fastinst.configs'],
    package_dir={'modelscope_fastinst.configs': 'configs'},
    package_data={'modelscope_fastinst': ['assets/default/*', 'assets/fonts/*'],
                  'modelscope_fastinst.configs': ['*.json']},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={
        'console_scripts': ['modelscope-fastinst = modelscope_fastinst.cli:main'],
        # makes `modelscope fastinst ...` work beside `modelscope download ...`
        'modelscope_hub.cli_plugins': ['fastinst = modelscope_fastinst.plugin.cli_plugin:FastInstCommand'],
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    keywords='modelscope fastinst instance segmentation',
    zip_safe=False,
)
