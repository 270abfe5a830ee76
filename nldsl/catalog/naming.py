"""From the path of a parameter to its name in a state dictionary."""

from __future__ import annotations

import keyword
import re

_MODULE = frozenset(
    (
        "T_destination",
        "add_module",
        "apply",
        "bfloat16",
        "buffers",
        "call_super_init",
        "children",
        "compile",
        "cpu",
        "cuda",
        "double",
        "dump_patches",
        "eval",
        "extra_repr",
        "float",
        "forward",
        "get_buffer",
        "get_extra_state",
        "get_parameter",
        "get_submodule",
        "half",
        "ipu",
        "load_state_dict",
        "modules",
        "mtia",
        "named_buffers",
        "named_children",
        "named_modules",
        "named_parameters",
        "parameters",
        "register_backward_hook",
        "register_buffer",
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
        "register_load_state_dict_post_hook",
        "register_load_state_dict_pre_hook",
        "register_module",
        "register_parameter",
        "register_state_dict_post_hook",
        "register_state_dict_pre_hook",
        "requires_grad_",
        "set_extra_state",
        "set_submodule",
        "share_memory",
        "state_dict",
        "to",
        "to_empty",
        "train",
        "training",
        "type",
        "xpu",
        "zero_grad",
    )
)
"""Public attributes of `torch.nn.Module` (a test compares them with the installed torch)."""

_OURS = frozenset(
    """
    attach attach_repeated attached carry counter declare drawn_paths init_state initialise initial_state
    learn like name parameter parameter_paths parameter_roles plan program root source start tasks zeros
    """.split()
)
"""Methods and attributes of the base class of emitted modules, and of `Layer` and `Model` around them."""

RESERVED = _MODULE | _OURS | frozenset(keyword.kwlist)
"""Names that no attribute of an emitted module may take."""

_SEGMENT = re.compile(r"([^\[\]]*)((?:\[\d+\])*)")


def attribute(segment: str) -> str:
    """A path segment as an attribute: reserved ones and those that begin with `_` get a trailing `_`.

    So does a reserved one that already has some, so that different segments stay different.

    Example:
        >>> attribute("train"), attribute("train_"), attribute("q")
        ('train_', 'train__', 'q')
    """
    escaped = segment.rstrip("_") in RESERVED or segment.startswith("_")
    return f"{segment}_" if escaped else segment


def torch_name(path: str) -> str:
    """The name of a path in a state dictionary: `[3]` becomes `.3`, reserved segments are escaped.

    Example:
        >>> torch_name("blocks[3].gated_deltanet.q.linear.weight")
        'blocks.3.gated_deltanet.q.linear.weight'
    """
    parts: list[str] = []
    for segment in path.split("."):
        match = _SEGMENT.fullmatch(segment)
        if match is None:
            raise ValueError(f"`{path}` is no parameter path")
        parts.append(attribute(match.group(1)))
        parts.extend(re.findall(r"\d+", match.group(2)))
    return ".".join(parts)
