"""Every sentence of the studio, in English and in Chinese, side by side."""
from __future__ import annotations

import string

LANGUAGES = ('en', 'zh')

# Labels and other fixed texts of the pages; the browser chooses between them.
PAGE = {
    'head': (
        '# FastInst Studio\n\nFinds every object in a picture or a video, each with a mask of its own. Drop a picture '
        'below, or start with an example.',
        '# FastInst 实例分割演示\n\n找出图片或视频中的每一个物体，并给出各自的掩码。拖入一张图片，或从示例开始。'),
    'links': (
        '[Paper](https://arxiv.org/abs/2303.08594) · [ModelScope](https://modelscope.cn/models) · [中文](?lang=zh)',
        '[论文](https://arxiv.org/abs/2303.08594) · [ModelScope](https://modelscope.cn/models) · [English](?lang=en)'),
    'tab_image': ('Image', '图片'),
    'tab_video': ('Video', '视频'),
    'model': ('Model', '模型'),
    'model_any': ('Choose one, or type a model folder or a ModelScope id (owner/name) and press Enter.',
                  '选择一个模型，或输入模型文件夹路径或 ModelScope 模型 ID（owner/name）后按回车。'),
    'embedded': ('Embedded (cell nuclei)', '内置模型（细胞核）'),
    'picture': ('Picture', '图片'),
    'picture_drop': ('Drop a picture here, paste one,\nor click to choose a file',
                     '将图片拖到此处、粘贴图片，\n或点击选择文件'),
    'picture_alt': ('The uploaded picture', '上传的图片'),
    'examples': ('Examples (drawn, not photographs)', '示例（程序绘制，非实拍）'),
    'run': ('Segment', '开始分割'),
    'what_is_shown': ('What is shown', '显示哪些结果'),
    'score': ('Minimum score', '最低置信度'),
    'score_info': ('Takes effect at once.', '立即生效，无需重新推理。'),
    'max_instances': ('At most this many', '最多显示数量'),
    'classes': ('Classes', '类别'),
    'classes_info': ('None chosen: all of them.', '不选则显示全部类别。'),
    'network': ('Inference', '推理设置'),
    'min_size': ('Short side in pixels', '短边像素数'),
    'min_size_info': ('Size at which the network sees the picture: larger finds smaller objects, and takes longer.',
                      '送入网络的图片尺寸：越大越能找到小物体，耗时也越长。'),
    'task': ('Task', '任务'),
    'task_instance': ('Instances', '实例分割'),
    'task_semantic': ('Semantic map', '语义分割'),
    'task_panoptic': ('Panoptic map', '全景分割'),
    'tile': ('Work in tiles (very large pictures)', '分块推理（超大图片）'),
    'tile_info': ('Cuts the picture into overlapping tiles, so that small objects are not lost.',
                  '将图片切成有重叠的小块分别推理，避免遗漏小物体。'),
    'look': ('Drawing', '绘制'),
    'color_by': ('Colors', '着色方式'),
    'by_instance': ('One per instance', '按实例'),
    'by_class': ('One per class', '按类别'),
    'opacity': ('Opacity of the masks', '掩码不透明度'),
    'parts': ('Show', '显示'),
    'outline': ('Outlines', '轮廓'),
    'tags': ('Labels', '标签'),
    'boxes': ('Boxes', '边框'),
    'result': ('Result', '结果'),
    'result_alt': ('The picture with the instances that were found', '标出了检测结果的图片'),
    'table': ('Instances: click one in the picture or in the table, and it stands out',
              '实例列表：点击图中的实例或表格中的一行，可突出显示'),
    'all_again': ('Show all', '显示全部'),
    'download_overlay': ('Overlay (PNG)', '叠加图（PNG）'),
    'download_json': ('COCO JSON', 'COCO JSON'),
    'download_masks': ('Masks (ZIP of PNG)', '掩码（PNG 压缩包）'),
    'video': ('Video', '视频'),
    'every': ('Segment every N-th frame', '每 N 帧推理一次'),
    'every_info': ('The frames between show the result before them: faster, less exact.',
                   '中间的帧沿用前一次的结果，更快但精度略低。'),
    'video_run': ('Process the video', '处理视频'),
    'video_stop': ('Stop', '停止'),
    'video_result': ('Result', '结果'),
    'video_download': ('Download the video', '下载视频'),
    'video_note': ('Colors stay with an object from frame to frame.', '同一物体在各帧中保持同一种颜色。'),
}

# What the server says in answer to something, with values put in.
ANSWERS = {
    'column_number': ('#', '序号'),
    'column_label': ('Label', '类别'),
    'column_score': ('Score', '置信度'),
    'column_area': ('Area (px)', '面积（像素）'),
    'column_box': ('Box (x1, y1, x2, y2)', '边框（x1, y1, x2, y2）'),
    'found': ('{count} found in {width} × {height} pixels', '在 {width} × {height} 像素的图片中找到 {count} 个'),
    'nothing': ('Nothing found. A lower minimum score may show more.', '未找到任何物体。可以试试调低最低置信度。'),
    'selected': ('No. {number}: {label}, score {score}, {area} pixels',
                 '第 {number} 个：{label}，置信度 {score}，{area} 像素'),
    'seconds': ('{value} s', '{value} 秒'),
    'milliseconds': ('{value} ms', '{value} 毫秒'),
    'model_ready': ('{name}: {count} classes ({classes})', '{name}：{count} 个类别（{classes}）'),
    'model_ready_one': ('{name}: one class, {classes}', '{name}：1 个类别，{classes}'),
    'and_more': ('{names}, …', '{names}……'),
    'video_progress': ('Frame {done} of {total}: {speed} frames/s, {left} s left',
                       '第 {done}/{total} 帧：{speed} 帧/秒，剩余 {left} 秒'),
    'video_progress_open': ('Frame {done}: {speed} frames/s', '第 {done} 帧：{speed} 帧/秒'),
    'video_done': ('{frames} frames in {seconds} s ({speed} frames/s)',
                   '{frames} 帧，用时 {seconds} 秒（{speed} 帧/秒）'),
    'video_begins': ('Opening the video …', '正在打开视频……'),
    'video_waits': ('Waiting: {count} before this one', '排队中，前面还有 {count} 个'),
}

# Why something is not done, by the codes of `messages.CODES`; bytes and pixels come as they are shown.
REFUSALS = {
    'nothing_uploaded': ('Upload a picture or a video first.', '请先上传图片或视频。'),
    'file_too_large': ('The file has {bytes}; at most {limit} are taken. Make it smaller and try again.',
                       '文件大小为 {bytes}，最多允许 {limit}，请缩小后重试。'),
    'file_empty': ('The file is empty. Choose another one.', '文件为空，请换一个文件。'),
    'not_a_picture': ('This file is not a picture. Choose a JPEG, PNG, WebP, BMP or TIFF file.',
                      '该文件不是图片，请选择 JPEG、PNG、WebP、BMP 或 TIFF 文件。'),
    'picture_damaged': ('This picture is damaged or cut off. Choose another one, or save it anew.',
                        '图片已损坏或不完整，请换一张，或重新保存后再试。'),
    'too_many_pixels': ('The picture has {width} × {height} pixels; at most {limit} in all are taken. Make it smaller.',
                        '图片尺寸为 {width} × {height}，总像素数最多允许 {limit}，请缩小后重试。'),
    'side_too_long': ('The picture has {width} × {height} pixels; a side may have {limit} at most. Make it smaller.',
                      '图片尺寸为 {width} × {height}，边长最多允许 {limit} 像素，请缩小后重试。'),
    'not_a_video': ('This file is not a video that can be read. Choose an MP4, WebM, MKV, MOV or AVI file.',
                    '无法将该文件识别为视频，请选择 MP4、WebM、MKV、MOV 或 AVI 文件。'),
    'video_damaged': ('This video is damaged: no frame of it can be read. Choose another one.',
                      '视频已损坏，没有可读取的帧，请换一个视频。'),
    'video_too_long': ('The video lasts {seconds} s; at most {limit} s are taken. Cut it and try again.',
                       '视频时长为 {seconds} 秒，最多允许 {limit} 秒，请剪短后重试。'),
    'video_too_many_frames': ('The video has {frames} frames; at most {limit} are taken. Cut it and try again.',
                              '视频共 {frames} 帧，最多允许 {limit} 帧，请剪短后重试。'),
    'video_frame_too_large': ('The frames have {width} × {height} pixels; at most {limit} in all are taken. Make the '
                              'video smaller.',
                              '视频分辨率为 {width} × {height}，每帧最多允许 {limit} 像素，请降低分辨率。'),
    'video_unavailable': ('This studio cannot read videos: the package av is missing. Whoever runs it installs it with '
                          'pip install "modelscope-fastinst[video]".',
                          '本演示无法读取视频：缺少 av 包。部署者可通过 '
                          'pip install "modelscope-fastinst[video]" 安装。'),
    'video_took_too_long': ('The video took more than {minutes} minutes and was stopped. Try a shorter one, or fewer '
                            'frames of it.', '视频处理超过 {minutes} 分钟，已停止。请换较短的视频，或降低抽帧密度。'),
    'model_not_allowed': ('This studio does not offer the model {name}. Choose one from the list.',
                          '本演示不提供模型 {name}，请从列表中选择。'),
    'model_unknown': ('{name} is neither a model folder nor the id of a model. An id looks like owner/name.',
                      '{name} 既不是模型文件夹，也不是模型 ID。模型 ID 的形式为 owner/name。'),
    'model_failed': ('The model {name} could not be loaded{reason}.', '模型 {name} 加载失败{reason}。'),
    'option_invalid': ('{option} is {value}; it must be between {least} and {most}.',
                       '{option} 的值为 {value}，应在 {least} 到 {most} 之间。'),
    'class_unknown': ('This model has no class {name}. Choose from the list of classes.',
                      '该模型没有类别 {name}，请从类别列表中选择。'),
    'task_unknown': ('This model cannot do the task {task}. Choose another one.',
                     '该模型不支持任务 {task}，请选择其他任务。'),
    'tile_unavailable': ('This cannot be done in tiles. Switch tiles off and try again.',
                         '此任务无法分块推理，请关闭分块推理后重试。'),
    'too_many_tiles': ('The picture would be cut into {tiles} tiles; at most {limit} are taken. Choose a smaller '
                       'picture, or a larger short side.',
                       '图片将被切成 {tiles} 块，最多允许 {limit} 块，请缩小图片或增大短边后重试。'),
    'busy': ('Too many visitors at the moment: {waiting} are waiting already. Try again in a little while.',
             '当前访问人数较多，已有 {waiting} 人在排队，请稍后再试。'),
    'timeout': ('No turn came within {seconds} s. Try again in a little while.',
                '等待超过 {seconds} 秒，请稍后再试。'),
    'expired': ('This result was removed in the meantime. Start again, or upload the file anew.',
                '该结果已过期清除，请重新开始，或重新上传文件。'),
    'stopped': ('Stopped.', '已停止。'),
    'out_of_memory': ('There is not enough memory for this. Try a smaller picture or a smaller short side.',
                      '内存不足。请换较小的图片，或减小短边像素数。'),
    'disk_full': ('The disk of the studio is full. Try again later.', '演示服务的磁盘已满，请稍后再试。'),
    'internal': ('Something went wrong here, not with you. Whoever runs the studio finds it in the log under {id}.',
                 '服务器内部出错，并非您的操作问题。部署者可在日志中按编号 {id} 查找。'),
}

# What the stages of a run are called, by the names under which a segmentation has their seconds; in their order.
STAGES = {
    'wait': ('wait', '排队'),
    'read': ('read', '读取'),
    'preprocess': ('prepare', '预处理'),
    'network': ('network', '网络推理'),
    'postprocess': ('masks', '后处理'),
    'whole': ('inference in tiles', '分块推理'),
    'draw': ('draw', '绘制'),
}

# What an option is called in a sentence; the others are called as on the page.
_OPTIONS = {'score_thr': 'score', 'every': 'every', 'min_size': 'min_size', 'max_instances': 'max_instances',
            'opacity': 'opacity', 'tile': 'tile', 'color_by': 'color_by', 'classes': 'classes', 'task': 'task'}


def page_texts(language: str) -> dict[str, str]:
    """The fixed texts of the pages in a language, by key."""
    return {key: versions[LANGUAGES.index(language)] for key, versions in PAGE.items()}


def answer(language: str, key: str, **values: object) -> str:
    """A sentence of the server: of ``ANSWERS``, else of ``PAGE``, with values put in as they are (not escaped)."""
    return _filled((ANSWERS.get(key) or PAGE[key])[LANGUAGES.index(language)], values)


def stage(language: str, name: str) -> str:
    """What a stage is called; its own name where there is no other."""
    return STAGES[name][LANGUAGES.index(language)] if name in STAGES else name


def refusal(language: str, code: str, values: dict[str, object]) -> str:
    """Why something was refused, as plain text; bytes become MB, and options get the name that the page gives them.

    Args:
        code, values: of a `messages.Refused`.
    """
    shown = dict(values)
    if code == 'file_too_large':
        shown = {name: _megabytes(value) for name, value in values.items()}
    if code == 'model_failed':   # strangers are told no reason: it names the server's folders
        reason = str(values['reason']).rstrip('.')
        shown['reason'] = reason and (': ' if language == 'en' else '：') + reason
    if 'option' in shown:
        key = _OPTIONS.get(str(shown['option']))
        shown['option'] = answer(language, key) if key else shown['option']
    return _filled(REFUSALS[code][LANGUAGES.index(language)], {name: _number(value) for name, value in shown.items()})


def _filled(sentence: str, values: dict[str, object]) -> str:
    # Values are put in as they are: braces in a class name are not taken for names of further values.
    return ''.join(before + ('' if name is None else str(values[name]))
                   for before, name, _, _ in string.Formatter().parse(sentence))


def _number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f'{value:,}' if isinstance(value, int) else f'{value:,.4g}'


def _megabytes(value: object) -> str:
    return f'{float(value) / 1e6:,.1f} MB' if isinstance(value, (int, float)) else str(value)
