"""What the rooms' fuzz/make_seeds.py share: writing or checking a corpus, and protobuf's wire form by hand."""

import pathlib
import sys


def varint(number):
    number %= 1 << 64
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def message(*fields):
    """fields: (number, value), where value is an int or bool, a str, bytes, or a message's bytes."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(int(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def text(value):
    """A byte for the length, then the text: what Script::Text() reads."""
    data = value.encode() if isinstance(value, str) else value
    assert len(data) < 256, len(data)
    return bytes([len(data)]) + data


def main(script, targets, description):
    """targets: {target: {name: bytes}}. Writes corpus/TARGET/NAME beside the script; with --check it only compares."""
    corpus = pathlib.Path(script).resolve().parent / "corpus"
    files = {corpus / target / name: data for target, seeds in targets.items() for name, data in seeds.items()}
    if sys.argv[1:] == ["--check"]:
        wrong = [str(path) for path, data in files.items() if not path.exists() or path.read_bytes() != data]
        print("\n".join(f"{path}: not what make_seeds.py makes" for path in wrong) or f"{len(files)} seeds are as made")
        return 1 if wrong else 0
    if sys.argv[1:]:
        print(description, file=sys.stderr)
        return 2
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    print(f"{len(files)} seeds, {sum(map(len, files.values()))} bytes, the largest {max(map(len, files.values()))}")
    return 0
