"""The completion scripts of bash, zsh and fish, made from the option table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby

from .syntax import Command, Flag, Values, commands, server_flags

PROGRAMS = ("authproxy", "authproxy.pyz")


def bash_script() -> str:
    """Return the script for bash 4 and later."""
    return "\n".join(_bash_lines()) + "\n"


def _bash_lines() -> Iterator[str]:
    all_commands = commands()
    yield "# Completion of authproxy for bash."
    yield "_authproxy() {"
    yield "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}"
    yield f"    local server='{_names(server_flags())}'"
    yield "    local flags=$server words='' value=''"
    # bash splits --flag=value into three words.
    yield "    if [[ $cur == = ]]; then cur=''"
    yield "    elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi"
    yield "    if [[ $COMP_CWORD -eq 1 ]]; then"
    yield f"        words='{' '.join(command.name for command in all_commands)}'"
    yield "    else case ${COMP_WORDS[1]} in"
    for command in all_commands:
        server = " $server" if command.is_configured else ""
        yield f"    {command.name})"
        yield f"        words='{_bash_values(command.words)}'"
        yield f'        flags="{_names(command.flags)}{server}" ;;'
    yield "    esac; fi"
    yield "    case $prev in"
    for pattern, values in _values_by_flag(all_commands):
        yield f"    {pattern}) value='{values}' ;;"
    yield "    esac"
    yield "    if [[ $value ]]; then words=$value"
    yield "    elif [[ $cur == -* ]]; then words=$flags; fi"
    yield "    COMPREPLY=()"
    yield "    case $words in"
    yield "    :text:) ;;"
    yield "    :file:)"
    yield "        compopt -o filenames 2>/dev/null"
    yield '        mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;'
    yield "    :directory:)"
    yield "        compopt -o filenames 2>/dev/null"
    yield '        mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;'
    yield '    *) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur") ;;'
    yield "    esac"
    yield "}"
    yield f"complete -F _authproxy {' '.join(PROGRAMS)}"


def _names(flags: Iterable[Flag]) -> str:
    return " ".join(flag.name for flag in flags)


def _values_by_flag(all_commands: Iterable[Command]) -> Iterator[tuple[str, str]]:
    """Yield a pattern of flags and their values, for each kind of values."""
    values = {
        flag.name: _bash_values(flag.values)
        for flag in (
            *(flag for command in all_commands for flag in command.flags),
            *server_flags(),
        )
        if flag.values != "switch"
    }
    ordered = sorted(values.items(), key=lambda item: (item[1], item[0]))
    for text, group in groupby(ordered, key=lambda item: item[1]):
        yield "|".join(name for name, _ in group), text


def _bash_values(values: Values) -> str:
    return f":{values}:" if isinstance(values, str) else " ".join(values)


def zsh_script() -> str:
    """Return the script for zsh, as a function of ``fpath`` or to be sourced."""
    return "\n".join(_zsh_lines()) + "\n"


def _zsh_lines() -> Iterator[str]:
    all_commands = commands()
    yield f"#compdef {' '.join(PROGRAMS)}"
    yield "_authproxy() {"
    yield "    local -a commands flags"
    yield "    local -a server"
    yield "    server=("
    yield from (f"        {_zsh_flag(flag)}" for flag in server_flags())
    yield "    )"
    yield "    commands=("
    for command in all_commands:
        yield f"        {_quote(f'{command.name}:{command.purpose}')}"
    yield "    )"
    yield "    if (( CURRENT > 2 )); then"
    yield "        case $words[2] in"
    for command in all_commands:
        yield f"        {command.name})"
        server = "$server" if command.is_configured else ""
        yield f"            flags=({server}"
        yield from (f"                {_zsh_flag(flag)}" for flag in command.flags)
        yield "            )"
        yield "            shift words; (( CURRENT-- ))"
        yield f"            _arguments {_zsh_words(command.words)} $flags; return ;;"
    yield "        esac"
    yield "    fi"
    yield "    if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then"
    yield "        _describe -t commands command commands; return"
    yield "    fi"
    yield "    _arguments $server"
    yield "}"
    yield 'if [[ ${funcstack[1]-} == _authproxy ]]; then _authproxy "$@"'
    yield f"else compdef _authproxy {' '.join(PROGRAMS)}; fi"


def _zsh_flag(flag: Flag) -> str:
    text = flag.purpose.replace("\\", "").translate({ord("["): "(", ord("]"): ")"})
    purpose = f"[{text}]" if text else ""
    if flag.values == "switch":
        return _quote(f"*{flag.name}{purpose}")
    return _quote(f"*{flag.name}={purpose}:value:{_zsh_values(flag.values)}")


def _zsh_values(values: Values) -> str:
    match values:
        case "file":
            return "_files"
        case "directory":
            return "_files -/"
        case str():
            return " "
    return f"({' '.join(values)})"


def _zsh_words(values: Values) -> str:
    if isinstance(values, tuple):
        return _quote(f"1:argument:({' '.join(values)})")
    return "'*:file:_files'" if values == "file" else ""


def fish_script() -> str:
    """Return the script for fish."""
    return "\n".join(_fish_lines()) + "\n"


def _fish_lines() -> Iterator[str]:
    all_commands = commands()
    others = " ".join(one.name for one in all_commands if not one.is_configured)
    configured = f"not __fish_seen_subcommand_from {others}"
    first = "test (count (commandline -opc)) -eq 1"
    yield "# Completion of authproxy for fish."
    for program in PROGRAMS:
        start = f"complete -c {program}"
        yield f"{start} -f"
        for command in all_commands:
            chosen = f"-n {_quote(first)} -a {command.name}"
            yield f"{start} {chosen} -d {_quote(command.purpose)}"
        yield from _fish_flags(start, configured, server_flags())
        for command in all_commands:
            seen = f"__fish_seen_subcommand_from {command.name}"
            yield from _fish_flags(start, seen, command.flags)
            if command.words == "file":
                yield f"{start} -n {_quote(seen)} -F"
            elif isinstance(command.words, tuple):
                words = _quote(" ".join(command.words))
                yield f"{start} -n {_quote(seen)} -a {words}"


def _fish_flags(start: str, condition: str, flags: Iterable[Flag]) -> Iterator[str]:
    for flag in flags:
        line = f"{start} -n {_quote(condition)} -l {flag.name.removeprefix('--')}"
        match flag.values:
            case "switch":
                pass
            case "file":
                line += " -r -F"
            case "directory":
                line += " -x -a '(__fish_complete_directories)'"
            case "text":
                line += " -x"
            case values:
                line += f" -x -a {_quote(' '.join(values))}"
        yield line + (f" -d {_quote(flag.purpose)}" if flag.purpose else "")


def _quote(text: str) -> str:
    r"""Quote *text* for a shell; ``'\''`` is valid in zsh and fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "'\\''") + "'"


SCRIPTS: Mapping[str, Callable[[], str]] = {
    "bash": bash_script,
    "zsh": zsh_script,
    "fish": fish_script,
}
