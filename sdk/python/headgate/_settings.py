"""The parameters that a lake's settings declare, read without a YAML library.

What is understood is what such files hold: mappings, in blocks or in braces on
one line, and texts, numbers and booleans. Anything else (lists, block texts) is
passed over, and an error where a parameter would need it.
"""

from __future__ import annotations

import datetime
import json
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

TYPES = ("str", "int", "float", "bool", "date", "timestamp")
SECRETS = ("secret", "vault")


class Scalar(NamedTuple):
    """A value as it is written; quoted tells "5" from 5."""

    text: str
    quoted: bool


class Opaque(NamedTuple):
    """Something that is not understood here."""

    line: int


Node = Union[Scalar, Opaque, Dict[str, Any], None]


class Parameter(NamedTuple):
    """What is declared of one parameter."""

    type: str  # one of TYPES or SECRETS; "" if it is given none
    default: Any  # None: it has none


class SettingsError(ValueError):
    """The settings hold something that this reader cannot follow."""


def parameters(text: str, file: str) -> Dict[str, Parameter]:
    """Return the parameters that a headgate.yaml or bauplan_project.yml declares."""
    root = read(text)
    declared = root.get("parameters")
    if isinstance(declared, Opaque):
        raise SettingsError(f"{file}:{declared.line}: parameters must be a mapping")
    found: Dict[str, Parameter] = {}
    for name, said in (declared if isinstance(declared, dict) else {}).items():
        if not isinstance(said, dict):
            raise SettingsError(f"{file}: parameter {name!r} must be a mapping such as {{type: int, default: 3}}")
        kind = said.get("type")
        typed = kind.text if isinstance(kind, Scalar) else ""
        if typed and typed not in TYPES + SECRETS:
            raise SettingsError(f"{file}: parameter {name!r} has the type {typed!r}, want one of {', '.join(TYPES)}")
        default = said.get("default")
        if isinstance(default, (Opaque, dict)) and typed not in SECRETS:
            raise SettingsError(f"{file}: the default of parameter {name!r} cannot be read here; give it a value of its own")
        value = None
        if isinstance(default, Scalar) and typed not in SECRETS:
            try:
                value = convert(default.text, typed or ("str" if default.quoted else ""))
            except ValueError as exc:
                raise SettingsError(f"{file}: the default of parameter {name!r}: {exc}") from exc
        found[name] = Parameter(typed, value)
    return found


def convert(text: str, kind: str) -> Any:
    """Return the value that a text is for a parameter of that type; "" guesses, as the server does."""
    if kind == "str":
        return text
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{text!r} is not a bool: true or false")
        return text.lower() == "true"
    if kind == "int":
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
            raise ValueError(f"{text!r} is not an int such as 42")
        return int(text)
    if kind == "float":
        if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
            raise ValueError(f"{text!r} is not a float such as 0.5")
        return float(text)
    if kind == "date":
        try:
            return datetime.date.fromisoformat(text)
        except ValueError as exc:
            raise ValueError(f"{text!r} is not a date such as 2001-01-31") from exc
    if kind == "timestamp":
        return _timestamp(text)
    try:
        guessed = json.loads(text)
    except ValueError:
        return text
    return guessed if isinstance(guessed, (bool, int, float)) else text


def _timestamp(text: str) -> datetime.datetime:
    whole, _, fraction = (text[:-1] + "+00:00" if text.endswith("Z") else text).partition(".")
    match = re.fullmatch(r"([0-9]{1,6})([+-].*)?", fraction) if fraction else None
    try:
        if fraction and match is None:
            raise ValueError
        offset = (match.group(2) or "") if match else ""
        at = datetime.datetime.fromisoformat(whole + offset)
    except ValueError as exc:
        raise ValueError(f"{text!r} is not a timestamp such as 2001-01-31T12:00:00") from exc
    if match:
        at = at.replace(microsecond=int(match.group(1).ljust(6, "0")))
    if at.tzinfo is not None:
        at = at.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return at


def read(text: str) -> Dict[str, Node]:
    """Return the file's mapping."""
    lines: List[Tuple[int, int, str]] = []  # number, indent, text
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        bare = _without_comment(line).rstrip()
        if bare.strip() and bare.strip() != "---":
            lines.append((number, len(bare) - len(bare.lstrip()), bare.strip()))
    found, _ = _block(lines, 0, 0)
    return found


def _block(lines: List[Tuple[int, int, str]], at: int, indent: int) -> Tuple[Dict[str, Node], int]:
    found: Dict[str, Node] = {}
    while at < len(lines) and lines[at][1] >= indent:
        number, depth, text = lines[at]
        key, rest, is_pair = _pair(text)
        end = at + 1
        while end < len(lines) and lines[end][1] > depth:
            end += 1
        if depth > indent or not is_pair:
            at = end
            continue
        if rest:
            found[key] = Opaque(number) if rest[0] in "|>&*!" else _value(rest, number)
        elif end > at + 1:
            nested = lines[at + 1]
            found[key] = Opaque(nested[0]) if nested[2].startswith("- ") else _block(lines[at + 1 : end], 0, nested[1])[0]
        else:
            found[key] = None
        at = end
    return found, at


def _pair(text: str) -> Tuple[str, str, bool]:
    """Split "key: value"."""
    quote = text[:1] if text[:1] in "'\"" else ""
    end = text.find(quote, 1) + 1 if quote else text.find(":")
    if end <= 0 or text[end : end + 1] != ":" or text[end + 1 : end + 2] not in ("", " "):
        return "", "", False
    key = text[1 : end - 1] if quote else text[:end].strip()
    return key, text[end + 1 :].strip(), True


def _value(text: str, line: int) -> Node:
    if text.startswith("{") and text.endswith("}"):
        pairs: Dict[str, Node] = {}
        for item in _items(text[1:-1]):
            key, rest, is_pair = _pair(item)
            if not is_pair:
                return Opaque(line)
            pairs[key] = _value(rest, line) if rest else None
        return pairs
    if text[0] in "[{":
        return Opaque(line)
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return Scalar(text[1:-1].replace("''", "'"), True)
    if len(text) >= 2 and text[0] == text[-1] == '"':
        try:
            return Scalar(str(json.loads(text)), True)
        except ValueError:
            return Opaque(line)
    return None if text in ("null", "~") else Scalar(text, False)


def _items(text: str) -> List[str]:
    """Split at the commas that are in no quotes, brackets or braces."""
    items, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0 and not quote:
            items.append("")
        else:
            items[-1] += letter
    return [item.strip() for item in items if item.strip()]


def _without_comment(line: str) -> str:
    quote: Optional[str] = None
    for at, letter in enumerate(line):
        if quote:
            quote = None if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (at == 0 or line[at - 1] in " \t"):
            return line[:at]
    return line
