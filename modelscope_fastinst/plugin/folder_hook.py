"""Lets ModelScope's functions read the configuration that a folder of Hugging Face's does not have as a file.

All of them read it through ``Config.from_file``, and ``Model.from_pretrained`` looks first whether the file is there.
The two methods are wrapped: for a folder that ``plugin.huggingface`` knows they are given what that makes of it, for
all others they do what they did. ``plugin.hub_hook`` installs them.
"""
from __future__ import annotations

import functools
import inspect
import json
import os
from types import ModuleType
from typing import Any

# What is wrapped: module, class, method and the parameters of it that are used.
WRAPPED_METHODS = {
    'modelscope.utils.config': ('Config', 'from_file', ('filename',)),
    'modelscope.models.base.base_model': ('Model', 'from_pretrained', ('model_name_or_path', 'cfg_dict')),
}
_MARK = '_fastinst_original'


def wrap_method(module: ModuleType) -> None:
    """Wraps the method of a module, if there is one to be wrapped in it. Idempotent.

    Raises:
        RuntimeError: the module lacks it, or it has other parameters (another version of ModelScope).
    """
    if module.__name__ not in WRAPPED_METHODS:
        return
    owner, name, parameters = WRAPPED_METHODS[module.__name__]
    cls = getattr(module, owner, None)
    original = vars(cls).get(name) if isinstance(cls, type) else None
    if hasattr(original, _MARK):
        return
    wanted = staticmethod if name == 'from_file' else classmethod
    known = inspect.signature(original.__func__).parameters if isinstance(original, wanted) else {}
    if not set(parameters) <= set(known):
        from modelscope.version import __version__
        raise RuntimeError(f'modelscope {__version__} has no {module.__name__}.{owner}.{name}({", ".join(parameters)}) '
                           'as known to modelscope_fastinst; install modelscope==1.40.2, or a newer '
                           'modelscope_fastinst')
    wrapped = _from_file(original) if name == 'from_file' else _from_pretrained(original)
    setattr(wrapped, _MARK, original)
    setattr(cls, name, wrapped)


def unwrap_method(module: ModuleType | None) -> None:
    """Gives the method back what it was. Idempotent."""
    if module is None or module.__name__ not in WRAPPED_METHODS:
        return
    owner, name, _ = WRAPPED_METHODS[module.__name__]
    present = vars(getattr(module, owner)).get(name)
    if hasattr(present, _MARK):
        setattr(getattr(module, owner), name, getattr(present, _MARK))


def _from_file(original: staticmethod) -> staticmethod:
    @functools.wraps(original.__func__)
    def from_file(filename: Any, *args: Any, **kwargs: Any) -> Any:
        folder, name = os.path.split(os.fspath(filename))
        if name == 'configuration.json':
            content = _folder_configuration(folder)
            if content is not None:
                from modelscope.utils.config import Config
                return Config(content, cfg_text=json.dumps(content), filename=os.fspath(filename))
        return original.__func__(filename, *args, **kwargs)

    return staticmethod(from_file)


def _from_pretrained(original: classmethod) -> classmethod:
    signature = inspect.signature(original.__func__)

    @functools.wraps(original.__func__)
    def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind_partial(cls, *args, **kwargs)
        folder = bound.arguments.get('model_name_or_path')
        # an id is led to its folder where this method downloads, after it has looked at these
        if isinstance(folder, str) and bound.arguments.get('cfg_dict') is None:
            from .hub_hook import folder_of
            folder = folder_of(folder, bound.arguments.get('revision'))
            content = _folder_configuration(folder)
            if content is not None:
                from modelscope.utils.config import Config

                from .huggingface import tell_guesses
                tell_guesses(folder)
                bound.arguments |= {'model_name_or_path': folder, 'cfg_dict': Config(content)}
                return original.__func__(*bound.args, **bound.kwargs)
        return original.__func__(cls, *args, **kwargs)

    return classmethod(from_pretrained)


def _folder_configuration(folder: str) -> dict[str, Any] | None:
    # Without this file it is none of Hugging Face's, and nothing needs to be imported.
    if not os.path.isfile(os.path.join(folder, 'config.json')):
        return None
    from .huggingface import folder_configuration
    return folder_configuration(folder)
