"""Template language of custom pages: a subset of Go's html/template.

Templates are text with ``{{actions}}``. Compilation tracks the HTML, JavaScript, CSS
or URL context of every action and selects the escapers of its value, so no value can
break out of its context. The output is byte for byte that of Go.

    lexer → parser → autoescape (contexts: html, js, css) → render (escapers, functions)
"""

from __future__ import annotations

from .compiled import TemplateSet, compile_templates
from .syntax import TemplateError
from .values import Html

__all__ = ["Html", "TemplateError", "TemplateSet", "compile_templates"]
