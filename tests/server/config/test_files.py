"""Files that options name: email lists, templates, the logo."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.configuration import problem, settings

EMAILS = "--authenticated-emails-file"
LOGO = "--custom-sign-in-logo"
TEMPLATES = "--custom-templates-dir"


def test_emails_file_first_column_in_lower_case(tmp_path: Path) -> None:
    file = tmp_path / "emails"
    file.write_text('# users\n Ann@Example.com , x\n\n"bob@example.com",y\n')
    loaded = settings(f"{EMAILS}={file}").core.authenticated_emails
    assert loaded == frozenset({"ann@example.com", "bob@example.com"})


def test_emails_file_byte_order_mark_is_not_part_of_the_email(tmp_path: Path) -> None:
    file = tmp_path / "emails"
    file.write_text("\ufeffann@example.com\n")
    loaded = settings(f"{EMAILS}={file}").core.authenticated_emails
    assert loaded == frozenset({"ann@example.com"})


def test_emails_file_empty_allows_no_user(tmp_path: Path) -> None:
    file = tmp_path / "emails"
    file.touch()
    assert settings(f"{EMAILS}={file}").core.authenticated_emails == frozenset()


def test_emails_file_with_any_email_allowed_warns(tmp_path: Path) -> None:
    file = tmp_path / "emails"
    file.write_text("ann@example.com\n")
    [warning] = settings(f"{EMAILS}={file}").warnings
    assert warning == (
        f"authenticated_emails_file ({EMAILS}): has no effect with '*' in email_domains, "
        "which allows any email"
    )
    assert settings(f"{EMAILS}={file}", "--email-domain=example.com").warnings == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a@b\nc@d,x\n", "FILE has lines with 1 and 2 columns, expected the same "
                          "number"),
        (b'a"b\n', "FILE is not CSV: line 1: quote in an unquoted field"),
        (b"\xff\n", "FILE is not UTF-8 text"),
        (None, "can't read FILE: No such file or directory"),
    ],
)  # fmt: skip
def test_emails_file_invalid_rejected(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "emails"
    if content is not None:
        file.write_bytes(content)
    assert problem(f"{EMAILS}={file}") == (
        f"authenticated_emails_file ({EMAILS}): {message.replace('FILE', str(file))}"
    )


def test_templates_directory_sets_present_templates(tmp_path: Path) -> None:
    texts = {
        "sign_in.html": '{{define "sign_in.html"}}{{.ProxyPrefix}}{{end}}',
        "robots.txt": "User-agent: *\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    loaded = settings(f"{TEMPLATES}={tmp_path}")
    pages = loaded.core.pages
    assert (pages.sign_in_template, pages.robots) == tuple(texts.values())
    assert pages.error_template == ""
    assert loaded.warnings == ()


def test_templates_directory_without_templates_warns(tmp_path: Path) -> None:
    loaded = settings(f"{TEMPLATES}={tmp_path}")
    assert loaded.warnings == (
        f"custom_templates_dir ({TEMPLATES}): {tmp_path} contains none of sign_in.html, "
        "error.html, signed_out.html, robots.txt; built-in pages are used",
    )


def test_template_invalid_rejected_with_line(tmp_path: Path) -> None:
    (tmp_path / "error.html").write_text("<p>\n{{.Title")
    text = problem(f"{TEMPLATES}={tmp_path}")
    assert text.startswith("custom_templates_dir: error.html:2: ")


def test_template_not_utf8_rejected(tmp_path: Path) -> None:
    (tmp_path / "error.html").write_bytes(b"\xff")
    assert problem(f"{TEMPLATES}={tmp_path}").endswith("/error.html is not UTF-8 text")


@pytest.mark.parametrize(
    ("value", "html"),
    [
        ("", ""),
        ("-", "-"),
        ("https://a.example/l.png?a=1&b='\"><x>",
         '<img src="https://a.example/l.png?a=1&amp;b=&#x27;&quot;&gt;&lt;x&gt;" '
         'alt="Logo" />'),
    ],
)  # fmt: skip
def test_logo_url_becomes_image(value: str, html: str) -> None:
    assert settings(f"{LOGO}={value}").core.pages.logo == html


def test_logo_file_is_inlined(tmp_path: Path) -> None:
    svg, png = tmp_path / "l.svg", tmp_path / "l.PNG"
    svg.write_text("<svg></svg>")
    png.write_bytes(b"\x89PNG")
    assert settings(f"{LOGO}={svg}").core.pages.logo == "<svg></svg>"
    assert settings(f"{LOGO}={png}").core.pages.logo == (
        '<img src="data:image/png;base64,iVBORw==" alt="Logo" />'
    )


@pytest.mark.parametrize("name", ["l.gif", "l", "http://a.example/l.png.gif"])
def test_logo_unknown_type_rejected(name: str) -> None:
    assert problem(f"{LOGO}={name}") == (
        f"custom_sign_in_logo ({LOGO}): got {name!r}, expected an https URL, a "
        ".svg, .png, .jpg or .jpeg file, or '-'"
    )


def test_logo_missing_or_too_large_rejected(tmp_path: Path) -> None:
    file = tmp_path / "l.jpg"
    assert problem(f"{LOGO}={file}").endswith("No such file or directory")
    file.write_bytes(bytes((1 << 20) + 1))
    assert problem(f"{LOGO}={file}").endswith(
        "has 1048577 bytes, expected at most 1048576"
    )


def test_file_name_with_nul_rejected() -> None:
    assert problem(f"{EMAILS}=a\0b").endswith("expected a file name")
