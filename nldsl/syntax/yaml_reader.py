"""The YAML form of a program: other brackets around the same statements, and the same tree."""

from __future__ import annotations

import re
from typing import Any

from nldsl.diagnostics import did_you_mean
from nldsl.syntax import tree as t
from nldsl.syntax.build import ROLES
from nldsl.syntax.scan import Place
from nldsl.syntax.versions import about_version
from nldsl.syntax.yaml_body import YamlBody
from nldsl.syntax.yaml_nodes import FaultyYamlError, Mapping, Scalar, Yaml, compose
from nldsl.syntax.yaml_scalars import NAME, YamlScalars

_DEFINITION = re.compile(r"(block|model|map|objective|rule)\s+([A-Za-z_]\w*)", re.ASCII)
_TRAIN = re.compile(r"train\s+([A-Za-z_]\w*)", re.ASCII)
_TOP = (
    "nldsl",
    "use",
    "items",
    "block NAME",
    "model NAME",
    "map NAME",
    "objective NAME",
    "rule NAME",
    "train NAME",
)


def read_yaml(place: Place) -> tuple[t.Item, ...]:
    """The items of a YAML program; what is wrong is reported and left out."""
    try:
        root = compose(place)
    except FaultyYamlError:
        return ()
    if root is None:
        return ()
    return YamlReader(place).file(root)


class YamlReader:
    """Reads the outermost level of a YAML program."""

    def __init__(self, place: Place) -> None:
        self.read = YamlScalars(place)
        self.bodies = YamlBody(self.read)

    def file(self, root: Yaml) -> tuple[t.Item, ...]:
        if not isinstance(root, Mapping):
            self.read.place.report(
                "NL0206", "a program is a mapping", (root.start, root.start + 1), help="begin with `nldsl: 1`"
            )
            return ()
        return self.read.each(self.item, root.entries)

    def item(self, key: Scalar, value: Yaml) -> Any:
        """What stands under one key of the outermost level."""
        word = key.value.strip()
        if word == "nldsl":
            return self.version(value)
        if word == "use":
            return tuple(self.use(node) for node in self.read.sequence(value))
        if word == "items":
            return tuple(node for part in self.read.sequence(value) for node in self.file(part))
        if word.startswith("variant"):
            return self.variant(key, value)
        if match := _TRAIN.fullmatch(word):
            return self.train(key, match, value)
        if _DEFINITION.match(word):
            return self.definition(key, value)
        raise self.read.fault(
            "NL0205", f"unknown key `{word}` in a program", key, did_you_mean(word, _TOP) or _KEYS
        )

    def version(self, value: Yaml) -> tuple[()]:
        wrong = about_version(self.read.scalar(value, "a version").value.strip(), "nldsl: 1")
        if wrong is not None:
            raise self.read.fault("NL0114", wrong[0], value, wrong[1])
        return ()

    def use(self, node: Yaml) -> t.Use:
        scalar = self.read.scalar(node, "a path")
        return t.Use(span=self.read.span(node), path=t.String(span=self.read.span(node), value=scalar.value))

    def definition(self, key: Scalar, value: Yaml) -> t.Definition:
        parts = self.read.mapping(value, ("takes", "levels", "memories", "body"), "a definition")
        match = _DEFINITION.match(key.value)
        assert match is not None  # `item` asked
        params: list[t.Param] = []
        if match.end() < len(key.value.rstrip()):
            reader, header = self.read.parse(key, "header", "`block NAME`")
            found = header.children[2] if header.data == "definition" else None
            params += [reader.builder.top(p) for p in found.children] if found else []
        takes = self.read.sequence(parts["takes"][1]) if "takes" in parts else ()
        params += self.read.each(
            self.read.build, ((n, "parameter", "a parameter such as `heads = 4`") for n in takes)
        )
        return t.Definition(
            span=self.read.span(key, value),
            kind=match.group(1),  # type: ignore[arg-type]
            name=self.read.name(key, match.group(2)),
            params=tuple(params),
            body=self.bodies.parts(parts, "body"),
        )

    def train(self, key: Scalar, match: re.Match[str], value: Yaml) -> t.Train:
        body = self.settings(value, "train")
        return t.Train(span=self.read.span(key, value), target=self.read.name(key, match.group(1)), body=body)

    def settings(self, node: Yaml, context: str) -> tuple[Any, ...]:
        """The entries of `train`: levels, groups, and settings under their own names."""
        entries = self.read.mapping(node, None, "`train`").values()
        return self.read.each(self.train_entry, ((k, v, context) for k, v in entries))

    def train_entry(self, key: Scalar, value: Yaml, context: str) -> Any:
        if key.value in ("levels", "groups", "body"):
            return self.bodies.parts({key.value: (key, value)}, context)
        if key.value in ROLES or not NAME.fullmatch(key.value.strip()):
            return self.bodies.group(key, value)
        reader, concrete = self.read.parse(value, "quantity", "a setting such as `256 tokens`")
        reader.builder.check_depth(concrete)
        return reader.builder.setting(
            self.read.name(key, key.value.strip()), concrete, self.read.span(key, value)
        )

    def variant(self, key: Scalar, value: Yaml) -> t.Variant:
        head = self.read.build(key, "item_line", "`variant NAME of NAME`")
        parts = (
            self.read.mapping(value, ("with", "levels", "train", "body"), "a variant") if _some(value) else {}
        )
        args = list(head.args)
        body: list[Any] = []
        for name, (_, node) in parts.items():
            if name == "with":
                entries = self.read.mapping(node, None, "`with`").values()
                args += self.read.each(self.arg, entries)
            elif name == "levels":
                entries = self.read.mapping(node, None, "levels").values()
                body += self.read.each(self.level_edit, entries)
            elif name == "train":
                body += self.settings(node, "variant")
            else:
                body += self.bodies.body(node, "variant")
        return t.Variant(
            span=self.read.span(key, value),
            name=head.name,
            base=head.base,
            args=tuple(args),
            body=tuple(body),
        )

    def arg(self, key: Scalar, value: Yaml) -> t.Arg:
        return t.Arg(
            span=self.read.span(key, value),
            name=self.read.name(key, key.value.strip()).id,
            value=self.read.expr(value),
        )

    def level_edit(self, key: Scalar, value: Yaml) -> t.LevelEdit:
        path = t.String(span=self.read.span(key), value=key.value)
        return t.LevelEdit(span=self.read.span(key, value), path=path, clock=self.read.clock(value))


_KEYS = "a program has the keys " + ", ".join(f"`{name}`" for name in (*_TOP, "variant NAME of NAME"))


def _some(node: Yaml) -> bool:
    """Whether anything stands behind a key."""
    return not (isinstance(node, Scalar) and not node.value)
