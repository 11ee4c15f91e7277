"""How the golden values are written: rounded, and with one line per list of numbers."""

import json


def digits7(value):
    """Floats rounded to seven significant digits, in whatever nest of dictionaries and lists."""
    if isinstance(value, dict):
        return {key: digits7(item) for key, item in value.items()}
    if isinstance(value, list):
        return [digits7(item) for item in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def layout(value, indent="", allow_nan=False):
    """JSON with an indented line per entry, but lists of plain values on one line."""
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        entries = [f"{json.dumps(key, ensure_ascii=False)}: {layout(item, deeper, allow_nan)}" for key, item in value.items()]
        return "{\n" + ",\n".join(deeper + entry for entry in entries) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[\n" + ",\n".join(deeper + layout(item, deeper, allow_nan) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=allow_nan)


def write_json(path, value, allow_nan=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(layout(value, allow_nan=allow_nan) + "\n", encoding="utf-8")


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    present = [{key: item for key, item in row.items() if item is not None} for row in rows]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in present), encoding="utf-8")


def write_toml(path, sections):
    """Sections of plain values; a dictionary inside one becomes an inline table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = []
    for section, keys in sections.items():
        blocks.append("".join([f"[{section}]\n"] + [f"{key} = {toml(item)}\n" for key, item in keys.items()]))
    path.write_text("\n".join(blocks), encoding="utf-8")


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)
