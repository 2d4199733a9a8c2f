"""The template language of custom pages: the used part of Go's html/template.

Templates are text with ``{{actions}}``. They are compiled once; compiling follows the
HTML, JavaScript, CSS or URL around every action and fixes how its value is escaped
there, so a value can never leave the place it was put in. The bytes that come out are
the ones Go writes.

    lexer → parser → autoescape (contexts: html, js, css) → render (escapers, functions)
"""

from __future__ import annotations

from .compiled import TemplateSet, compile_templates
from .syntax import TemplateError
from .values import Html

__all__ = ["Html", "TemplateError", "TemplateSet", "compile_templates"]
