"""What mkdocs calls: the generated pages join the written ones, and the navigation is filled in."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from docs.generate.inspect import external  # noqa: E402
from docs.generate.site import navigation, pages  # noqa: E402

log = logging.getLogger("mkdocs.hooks.generate")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the navigation."""
    config.nav = navigation(config.nav or [])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every generated page; one that cannot be made is an error, never left out."""
    for place, make in pages().items():
        files.append(File.generated(config, place, content=make()))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Whatever a page would load from elsewhere is a warning, and so fails a strict build."""
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css"):
            for address in external(path.read_text(encoding="utf-8")):
                log.warning("%s loads %s", path.relative_to(config.site_dir), address)
