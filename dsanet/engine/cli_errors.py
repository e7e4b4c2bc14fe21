"""What the parser of the command line complains about, in the words of who typed it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text",
         "tuple": "a list, such as [3, 4]", "NoneType": "null"}  # fmt: skip


def explain(message: str, keys: Sequence[str]) -> str:
    """One line for a message of jsonargparse, with the key, what it takes, or the nearest one.

    keys: all that there are, with dots.
    """
    text = " ".join(message.split())
    if block := re.match(r'Parser key "([^"]+)": Unable to load config \'(.*?)\'', text):
        return (
            f"--{block[1]} {block[2]}: must be a YAML file; or give single keys, --{block[1]}.KEY"
        )
    if wrong := re.fullmatch(r'Parser key "([^"]+)": (.*)', text):
        return _wrong_value(wrong[1], wrong[2])
    if missing := re.fullmatch(r"the following arguments are required: (.*)", text):
        flags = ", ".join(f"--{key}" for key in missing[1].split(", "))
        return f"{flags} must be given; --help lists all keys"
    unknown = re.search(r"unrecognized arguments: --(\S+)", text) or re.search(
        r"does not accept option '([^']+)'", text
    )
    if unknown:
        near = nearest(unknown[1].split("=")[0], keys)
        text += f"; did you mean {near}?" if near else "; --help lists all keys"
    return text


def nearest(name: str, keys: Sequence[str]) -> str | None:
    """The key that was most likely meant: of the same last part, else of similar spelling."""
    leaves = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    last = name.split(".")[-1]
    if same := [key for key in leaves if key.split(".")[-1] == last]:
        return " or ".join(same[:3])
    close = difflib.get_close_matches(name, leaves, 1)
    tails = {key.split(".")[-1]: key for key in leaves}
    close += [tails[tail] for tail in difflib.get_close_matches(last, tails, 1, 0.7)]
    return close[0] if close else None


def _wrong_value(key: str, complaint: str) -> str:
    """`--runtime.precision fp61: must be one of auto, fp32, bf16, fp16`."""
    value = re.search(r"(?:Got|Given) value: (.*)$", complaint)
    wanted = _wanted(complaint)
    if not value or not wanted:
        return f"--{key}: {complaint}"
    return f"--{key} {value[1]}: must be {wanted}"


def _wanted(complaint: str) -> str:
    found = []
    for choices, kind, length in re.findall(
        r"Expected a (?:typing\.Literal\[(.*?)\]|<class '(\w+)'>|tuple with (\d+) elements)",
        complaint,
    ):
        if length:
            found.append(f"a list of {length}")
        else:
            found.append("one of " + choices.replace("'", "") if choices else KINDS.get(kind, kind))
    return " or ".join(found)
