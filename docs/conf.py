"""How Sphinx builds docs/ into a site: `make docs-site`.

Sphinx with Furo: both are maintained, and Furo is the theme of pip's and attrs' documentation. mkdocs-material is
declared inactive by its authors, and MkDocs 2 has no plugins. MyST reads the same Markdown that GitHub shows. A page
of the site loads nothing from elsewhere: no font, no script, no picture.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dev"))
import error_list
import sequence_diagram

from smssh_plugin import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "smssh-plugin"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]

smartquotes = False  # quotation marks on these pages are code

html_theme = "furo"
html_title = "smssh-plugin"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]

myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 4

default_role = "code"  # one pair of backticks is code, in docstrings as in Markdown
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
copybutton_prompt_text = r"^(?:\$|root@algo-1:~#) "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"


class Mermaid(SphinxDirective):
    """A sequence diagram as SVG."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The picture, in a box that scrolls sideways on a phone."""
        picture = sequence_diagram.svg("\n".join(self.content))
        return [nodes.raw("", f'<div class="sequence-box">{picture}</div>', format="html")]


class Errors(SphinxDirective):
    """The errors of the package, each with an anchor: its reference."""

    def run(self) -> list[nodes.Node]:
        """A definition list: what an error can say, and what to do."""
        found = nodes.definition_list()
        for reference, places in error_list.errors().items():
            item = nodes.definition_list_item()
            item += nodes.term("", "", nodes.literal(text=reference), ids=[reference])
            said = nodes.bullet_list()
            for message, hints in dict.fromkeys((each.messages, each.hints) for each in places):
                entry = nodes.list_item()
                entry += nodes.paragraph(text="; or ".join(message) or "what is wrong is in the message")
                entry += [nodes.paragraph("", "", nodes.emphasis(text=hint)) for hint in hints]
                said += entry
            item += nodes.definition("", said)
            found += item
        return [found]


def as_rst(_app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """What our docstrings have of Markdown, as autodoc reads it: blocks of code in fences."""
    fenced = False
    for number, line in enumerate(lines):
        if line.strip().startswith("```"):
            fenced = not fenced
            lines[number] = f"{line.partition('`')[0]}.. code-block:: python\n" if fenced else ""
        elif fenced:
            lines[number] = f"   {line}"
    lines[:] = "\n".join(lines).split("\n")


def setup(app: Sphinx) -> None:
    """Called by Sphinx before it reads a page."""
    app.add_directive("mermaid", Mermaid)
    app.add_directive("errors", Errors)
    app.connect("autodoc-process-docstring", as_rst, priority=400)  # before napoleon
