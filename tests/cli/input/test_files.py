# ruff: noqa: RUF001 - Russian words
"""Each kind of file with what comes of it: the ids that were meant, or a refusal in words."""

from __future__ import annotations

import bz2
import datetime
import gzip
import json
import os
import threading
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from dispatchkit.cli.input import files
from dispatchkit.cli.input.reading import FileOptions, from_file
from tests.cli.input.workbooks import Formatted, Formula, raw, workbook

A, B, C = 10000000125, 10000000126, 10000000127
HEADER = "id,outcome,code,error,request_id\n"
EXPORT = "index,id,command,state,code,error,request_id,attempts,at\n"


def read(tmp_path: Path, content: str | bytes, **options: Any) -> list[int]:
    path = tmp_path / "f"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(from_file(str(path), FileOptions(**options)))


def zipped(name: str) -> bytes:
    data = BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(name, "1")
    return data.getvalue()


def flipped() -> bytes:
    """A workbook whose parts are not compressed, with one digit of an id changed."""
    data = raw('<c t="s"><v>0</v></c>', strings=f"<si><t>{A}</t></si>")
    assert str(A).encode() in data
    return data.replace(str(A).encode(), str(A + 10).encode())


def parts_of_one_name() -> bytes:
    data = BytesIO(raw("<c><v>5</v></c>"))
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr("xl/Worksheets/sheet1.xml", "<worksheet/>")
    return data.getvalue()


ID = {"column": "id"}
STRING = "<si><t>7</t></si>"
TWO_ROWS = "<c><v>5</v></c></row><row><c><v>6</v></c>"
TWO_COLUMNS = (
    '<c t="str"><v>x</v></c><c t="str"><v>id</v></c></row><row><c t="str"><v>y</v></c><c><v>6</v></c></row>'
    "<row><c/><c><v>7</v></c>"
)


def cols(attributes: str) -> str:
    return f'<cols><col min="1" max="1" {attributes}/></cols>'


def merged(area: str) -> str:
    return f'<mergeCells count="1"><mergeCell ref="{area}"/></mergeCells>'


def styles(code: str) -> str:
    return (
        f'<numFmts><numFmt numFmtId="164" formatCode="{code}"/></numFmts><cellXfs><xf numFmtId="0"/>'
        '<xf numFmtId="164"/></cellXfs>'
    )


GOOD: list[tuple[str, str | bytes, Mapping[str, object], list[int]]] = [
    ("a plain list", f"{A}\n{B}\n", {}, [A, B]),
    ("no line end", f"{A}\n{B}", {}, [A, B]),
    ("old Mac line ends", f"{A}\r{B}\r", {}, [A, B]),
    ("Windows line ends", f"{A}\r\n{B}\r\n", {}, [A, B]),
    ("a comment after a blank", f"# ids\n{A} # one\n{B}\t#two\n#\n", {}, [A, B]),
    ("empty fields at the end", f"{A},,\n{B};\n,,\n", {}, [A, B]),
    ("quotes", f'"{A}"\n" {B} "\n', {}, [A, B]),
    ("a column of one field", f"Id\n{A}\n{B}\n", {"column": "id"}, [A, B]),
    ("a comment in one column", f"id\n# no\n{A} # yes\n", {"column": "id"}, [A]),
    ("another case", f" ID ,name\n{A},x\n", {"column": "id"}, [A]),
    ("case of the option", f"id,name\n{A},x\n", {"column": " Id"}, [A]),
    ("empty fields beyond the header", f"id,name\n{A},x,,\n{B},y\n", {"column": "id"}, [A, B]),
    ("a wide header", f"id,name,,\n{A},x,,\n{B},y\n", {"column": "id"}, [A, B]),
    ("empty rows", f"id,name\n\n,\n{A},x\n  \n", {"column": "id"}, [A]),
    ("a quoted delimiter", f'name,id\n"Discount 10,5",{A}\n', {"column": "id"}, [A]),
    ("a quoted quote", f'name,id\n"say ""a"", b",{A}\n', {"column": "id"}, [A]),
    ("a hash in a value", f"name,id\n#SALE,{A}\n", {"column": "id"}, [A]),
    ("semicolons", f"name;id\n10,5;{A}\n", {"column": "id"}, [A]),
    ("tabs", f"name\tid\nx\t{A}\n", {"column": "id"}, [A]),
    ("a sep line", f"sep=;\nid;name\n{A};x\n", {"column": "id"}, [A]),
    ("a sep line with another sign", f"sep=|\nid|name\n{A}|x\n", {"column": "id"}, [A]),
    ("a sep line above a list", f"sep=;\n{A};\n", {}, [A]),
    ("a title", f"Report of March\n\nid,name\n{A},x\n", {"column": "id"}, [A]),
    ("a wide title", f"Report;;\nname;id;\nx;{A};\n", {"column": "id"}, [A]),
    ("UTF-8 with its mark", f"\ufeff{A}\n{B}\n", {}, [A, B]),
    ("UTF-16", f"имя;id\nя;{A}\n".encode("utf-16"), {"column": "id"}, [A]),
    ("UTF-16 big end first", b"\xfe\xff" + f"{A}\n".encode("utf-16-be"), {}, [A]),
    ("UTF-16 without its mark", f"{A}\n".encode("utf-16-le"), {"encoding": "utf-16-le"}, [A]),
    ("UTF-32", f"{A}\n".encode("utf-32"), {}, [A]),
    ("cp1251", f"имя;id\nя;{A}\n".encode("cp1251"), {"column": "id", "encoding": "cp1251"}, [A]),
    ("gzip", gzip.compress(f"{A}\n{B}\n".encode()), {}, [A, B]),
    ("gzip of many parts", gzip.compress(f"{A}\n".encode()) + gzip.compress(f"{B}\n".encode()), {}, [A, B]),
    ("gzip of a workbook", gzip.compress(workbook([[A], [B]])), {}, [A, B]),
    ("failures", f"{HEADER}{A},rejected,,no,\n5-7,not_started,,,\n{B},unknown,,,\n", {}, [A, 5, 6, 7]),
    ("failures, unknown too", f"{HEADER}{A},unknown,,,\n{B},not_sent,,,\n", {"include_unknown": True}, [A, B]),
    ("what is done", f"{HEADER}{A},done,,,\n{B},not_sent,,,\n", {}, [B]),
    ("done in another row", f"{HEADER}{A},not_sent,,,\n{B},rejected,,,\n{A},done,,,\n", {}, [B]),
    ("unknown in another row", f"{HEADER}{A},unknown,,,\n{A},not_sent,,,\n{B},not_sent,,,\n", {}, [B]),
    ("an export", f"{EXPORT}0,{A},StartDispatch,done,,,,1,\n1,{B},StartDispatch,planned,,,,0,\n", {}, [B]),
    ("an export in flight", f"{EXPORT}0,{A},StartDispatch,sending,,,,1,\n1,{B},X,not_sent,,,,1,\n", {}, [B]),
    ("targets", f"index,target,command,state\n0,{A},x,rejected\n", {}, [A]),
    ("JSON Lines", f'{{"id": {A}, "state": "done"}}\n\n{{"id": {B}, "state": "rejected"}}\n', {}, [B]),
    ("JSON targets", f'{{"target": {A}, "state": "not_sent"}}\n{{"target": "{B}", "outcome": "unknown"}}\n', {}, [A]),
    ("JSON, nested", f'{{"index": 0, "target": {{"dispatch_id": {A}}}, "state": "not_sent"}}\n', {}, [A]),
    ("JSON, in the command", f'{{"command": {{"mailing_id": {A}, "limit": 5}}, "state": "not_sent"}}\n', {}, [A]),
    ("JSON by name", f'{{"dispatch_id": {A}, "status": "sending"}}\n', {"column": "dispatch_id"}, [A]),
    ("JSON with a mark", f'\ufeff{{"id": {A}, "state": "not_sent"}}\n', {}, [A]),
    ("a workbook", workbook([["name", "ID "], ["x", A], ["y", str(B)]]), {"column": "id"}, [A, B]),
    ("a workbook of one column", workbook([[A], [B]]), {}, [A, B]),
    ("a workbook that begins elsewhere", workbook([[], [], ["", "", "id"], ["", "", A]]), {"column": "id"}, [A]),
    ("a workbook with a title", workbook([["Report of March"], [], ["id", "x"], [A, 1]]), {"column": "id"}, [A]),
    ("a named sheet", workbook([[A]], more=[("Two", [[B]], "visible")]), {"sheet": "two"}, [B]),
    ("a hidden sheet", workbook([[A]], more=[("Two", [[B]], "hidden")]), {}, [A]),
    ("a hidden sheet by name", workbook([[A]], more=[("Two", [[B]], "hidden")]), {"sheet": "Two"}, [B]),
    ("an empty sheet", workbook([[A]], more=[("Two", [], "visible")]), {}, [A]),
    ("a hidden row without an id", workbook([["id"], [A], [], [B]], hidden=[3]), {"column": "id"}, [A, B]),
    ("separators displayed", workbook([["id"], [Formatted(A, "#,##0")]]), {"column": "id"}, [A]),
    ("states of a workbook", workbook([["id", "state"], [A, "done"], [B, "not_sent"]]), {}, [B]),
    ("an error elsewhere", workbook([["id", "sum"], [A, Formula("#REF!")]]), {"column": "id"}, [A]),
    *(
        (f"displayed as {code}", raw('<c s="1"><v>5</v></c>', styles=styles(code)), {}, [5])
        for code in ("0;;;@", "#,##0_);[Red](#,##0)", "[$-409]0", "[&gt;9]0;0", r"#\ ##0", "0;0;0", "_-* #,##0_-;@")
    ),
    ("a text of four sections", raw('<c t="str" s="1"><v>5</v></c>', styles=styles("0;;;@")), {}, [5]),
    (
        "a formula's text",
        raw('<c t="str"><v>a&amp;b</v></c><c t="str"><v>id</v></c></row><row><c/><c><v>5</v></c>'),
        ID,
        [5],
    ),
    ("a visible column", raw("<c><v>5</v></c>", before=cols('width="9"')), {}, [5]),
    ("another column hidden", raw("<c><v>5</v></c>", before=cols('hidden="1"').replace("1", "2", 2)), {}, [5]),
    ("a merged title", raw(TWO_COLUMNS, after=merged("A1:A2")), ID, [6, 7]),
    ("the first cell of a merged area", raw(TWO_COLUMNS, after=merged("B2:C2")), ID, [6, 7]),
    ("rows that begin late", raw('<c><v>5</v></c></row><row hidden="1"><c/>', row='r="3"'), {}, [5]),
    (
        "JSON of a command with the id",
        (
            '{"target": 5, "command": {"mailing_id": 5}, "state": "not_sent"}\n'
            '{"target": 6, "command": {"campaign": 9}, "state": "not_sent"}\n'
        ),
        {},
        [5, 6],
    ),
    ("a JSON range with its state", '{"id": "5-6", "state": "not_started"}\n', {}, [5, 6]),
    ("15 digits", workbook([["id"], [999999999999999]]), {"column": "id"}, [999999999999999]),
    ("long ids as text", workbook([["id"], ["1234567890123456789"]]), {"column": "id"}, [1234567890123456789]),
]


@pytest.mark.parametrize(("content", "options", "ids"), [case[1:] for case in GOOD], ids=[case[0] for case in GOOD])
def test_good_file_gives_its_ids(
    tmp_path: Path, content: str | bytes, options: dict[str, object], ids: list[int]
) -> None:
    assert read(tmp_path, content, **options) == ids


EXCEL = [
    ("1.0E+10", "Excel has shortened the number"),
    ("1,00000E+11", "Excel has shortened the number"),
    ("1E10", "Excel has shortened the number"),
    ("-1,5e+10", "Excel has shortened the number"),
    ("1,0\u0415+10", "Excel has shortened the number"),
    ("10000000125.0", "it has decimals"),
    ("10000000125,00", "it has decimals"),
    ("10000000125.", "it has decimals"),
    ("10.5", "a number with decimals is not an id"),
    ("10,000,000,125", "thousands separators"),
    ("10.000.000.125", "thousands separators"),
    ("10 000 000 125", "thousands separators"),
    ("10\u00a0000\u00a0000\u00a0125", "thousands separators"),
    ("10\u202f000\u202f000\u202f125", "thousands separators"),
    ("10'000'000'125", "thousands separators"),
    ("10,000,000,125.00", "thousands separators"),
    ("\u00a010000000125", r"U\+00A0 NO-BREAK SPACE"),
    ("10000000125\u00a0", r"U\+00A0 NO-BREAK SPACE"),
    ("\u200b10000000125", r"U\+200B ZERO WIDTH SPACE"),
    ("10000\u200d000125", r"U\+200D ZERO WIDTH JOINER"),
    ("10000000125\ufeff", r"U\+FEFF ZERO WIDTH NO-BREAK SPACE"),
    ("1000\u00ad0000125", r"U\+00AD SOFT HYPHEN"),
    ("\uff11\uff10", "a digit of another script"),
    ("\u0661\u0662", "a digit of another script"),
    ("10\u00b2", "a digit of another script"),
    ("#########", "the column was too narrow"),
    ("#REF!", "a formula failed"),
    ("#N/A", "a formula failed"),
    ("#DIV/0!", "a formula failed"),
    ("#ССЫЛКА!", "a formula failed"),
    ("#Н/Д", "a formula failed"),
    ("'10000000125", "an apostrophe"),
    ("\u201910000000125", "an apostrophe"),
    ("+10000000125", "it has a sign"),
    ("-10000000125", "it has a sign"),
    ("\u221210000000125", "it has a sign"),
    ("=A1", "it is a formula"),
    ("01.02.2026", "Excel has made a date of it"),
    ("2026-01-31", "Excel has made a date of it"),
    ("5-мар", "Excel has made a date of it"),
    ("Mar-26", "look at the row"),
    ("5-9", "a range is given as an argument"),
    ("0", "no mailing has the id 0"),
    ("000", "no mailing has the id 0"),
    ("9223372036854775808", "it is too large"),
    ("1#2", "look at the row"),
    ("x2", "look at the row"),
    ("10%", "look at the row"),
]


@pytest.mark.parametrize(("text", "message"), EXCEL, ids=[text.encode("unicode_escape").decode() for text, _ in EXCEL])
def test_damage_is_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    expected = rf"f, line 3: .* is not an id.*{message}"
    for content, options in (
        (f"{A}\n{B}\n{text}\n{C}\n", {}),
        (f"id\n{B}\n{text}\n{C}\n", ID),
        (f"name;id\nx;{B}\ny;{text}\nz;{C}\n", ID),
        (f"name\tid\nx\t{B}\ny\t{text}\nz\t{C}\n", ID),
    ):
        with pytest.raises(ValueError, match=expected):
            read(tmp_path, content, **options)
    with pytest.raises(ValueError, match=rf"f, sheet 'Sheet', cell B2: .* is not an id.*{message}"):
        read(tmp_path, workbook([["name", "id"], ["x", f"{text}" if text[0] != "=" else f" {text}"]]), column="id")


BAD: list[tuple[str, str | bytes, Mapping[str, object], str]] = [
    ("shortened", "id\n1,00000E+11\n", ID, "f, line 2: '1,00000E[+]11' is not an id.*shortened"),
    ("shortened by a field", "id,name\n1,00000E+11,x\n", ID, "line 2: this row has 3 fields of 2: .*shortened"),
    ("thousands", "id,name\n10,000,000,125,x\n", ID, "line 2: this row has 5 fields of 2: '10,000,000,125'.*thousands"),
    ("thousands of one column", "id\n10,000,000,125\n", ID, "line 2: '10,000,000,125' is not an id.*thousands"),
    ("a shift", f"name,id\nDiscount 10,5,{A}\n", ID, "line 2: this row has 3 fields of 2: a value holds the delimiter"),
    ("a shift beside an outcome", f"name,id,state\nDiscount 10,5,{A},done\n", ID, "line 2: this row has 4 fields of 3"),
    ("a shift to the end", f"name,id,x\nDiscount 10,5,{A},\n", ID, "line 2: this row has 4 fields of 3"),
    ("a shift without an id", "name,id\nDiscount 10,5,\n", ID, "line 2: this row has 3 fields of 2"),
    ("thousands before nothing", "id,name\n10,000,\n", ID, "line 2: this row has 3 fields of 2"),
    ("a shift under no name", f"name,id,\nDiscount 10,5,{A}\n", ID, "line 2: this row has 3 fields of 2"),
    ("a row too short", f"id,name\n{A},x\n{B}\n", ID, "line 3: this row has 1 fields of 2: it may be cut short"),
    ("a list with two fields", f"{A}\n10,5\n", {}, "line 2: '10,5' is not an id"),
    ("a list with more fields", f"{A}\n10;x\n", {}, "line 2: '10;x' is not an id.*--column NAME"),
    ("a cut list", f"{A}\n{B}\n1000", {}, "line 3: '1000': the last line has no line end"),
    ("a cut column", f"id\n{A}\n{B}\n1000", ID, "line 4: '1000': the last line has no line end"),
    ("a cut column of one", "dispatch_id\n1000", {"column": "dispatch_id"}, "line 2: '1000': the last line has no"),
    ("a cut id at the end", f"name,id\nx,{A}\nlong name,1000", ID, "line 3: 'long name,1000': the last line has no"),
    ("a cut quote", f'id,name\n{A},x\n{B},"y', ID, "line 3: a quoted field goes on beyond its line"),
    ("a line break", f'name,id\n"a\nb",{A}\n', ID, "line 2: a quoted field goes on"),
    ("a line break before ids", f'name,id\n"a\n7,8\nb",{A}\n', ID, "(?s)line 2: a quoted field goes on"),
    ("no hash", "1#2\n", {}, "'1#2' is not an id"),
    ("an error as a comment", f"{A}\n{B}\t#REF!\n", {}, "line 2: '10000000126\\\\t#REF!' is not an id"),
    ("no header", f"{A},x\n", ID, "f, line 1: the header names no column 'id': '10000000125', 'x'"),
    ("another name", f"idd,name\n{A},x\n", ID, "line 1: .* no column 'id'.*did you mean --column 'idd'"),
    ("a column without a name", f"id,name\n{A},x\n", {}, "line 1: 'id,name' is not an id.*--column id$"),
    ("a header without an id", f"dispatch;name\n{A};x\n", {}, "line 1: 'dispatch;name' is not an id.*--column NAME"),
    ("one column without a name", f"id\n{A}\n", {}, "line 1: 'id' is not an id.*--column id$"),
    ("two of a name", f"id,ID\n{A},{B}\n", ID, "line 1: the header names 'id' more than once"),
    ("two states", f"id,state,outcome\n{A},done,done\n", {}, "line 1: the header names both"),
    ("another state", f"id,state\n{A},CA\n", ID, "line 2: 'CA' is no outcome.*another name"),
    ("a cut state", f"{HEADER}{A},not_s", {}, "line 2: this row has 2 fields of 5"),
    ("all done", f"{HEADER}{A},done,,,\n", {}, "f holds no ids but 1 that are done"),
    ("all in flight", f"{EXPORT}0,{A},X,sending,,,,1,\n", {}, "holds no ids but 1 whose outcome is unknown"),
    ("a damaged row that is done", f"{HEADER}x,done,,,\n{A},not_sent,,,\n", {}, "line 2: 'x' is not an id"),
    ("JSON floats", '{"id": 1.0, "state": "not_sent"}\n', {}, "f, line 1: '1.0' is not an id"),
    ("JSON exponents", '{"id": 1e10, "state": "not_sent"}\n', {}, "line 1: '10000000000.0' is not an id"),
    ("JSON truth", '{"id": true, "state": "not_sent"}\n', {}, "line 1: 'true' is not an id"),
    ("JSON null", '{"id": null, "state": "not_sent"}\n', {}, "line 1: 'null' is not an id"),
    ("JSON minus", '{"id": -5, "state": "not_sent"}\n', {}, "line 1: '-5' is not an id.*sign"),
    ("JSON of a huge number", f'{{"id": {"9" * 40}, "state": "not_sent"}}\n', {}, "is not an id.*too large"),
    ("JSON of no end", f'{{"id": {"9" * 5000}, "state": "not_sent"}}\n', {}, "f, line 1: "),
    ("cut JSON", f'{{"id": {A}, "state": "not_sent"}}\n{{"id": 1000', {}, "line 2: this is not a JSON object"),
    ("JSON twice", '{"id": 1, "id": 2, "state": "not_sent"}\n', {}, "line 1: it names a key more than once"),
    ("JSON twice but for case", '{"id": 1, "ID": 2, "state": "not_sent"}\n', {}, "line 1: it names a key more than"),
    ("JSON of two ids", '{"id": 1, "target": 2, "state": "not_sent"}\n', {}, "its target, its id and that"),
    (
        "JSON of a command with another id",
        '{"target": 5, "command": {"mailing_id": 7}, "state": "not_sent"}\n',
        {},
        "line 1: its target, its id and that of its command are not the same",
    ),
    ("a JSON range under a name", '{"id": "1000-1005"}\n', ID, "line 1: '1000-1005' is not an id.*a range is given as"),
    ("JSON of two states", '{"id": 1, "state": "done", "outcome": "not_sent"}\n', {}, "are not the same"),
    ("JSON of no state", '{"id": 1}\n', {}, "line 1: it has no state"),
    ("JSON of no id", '{"state": "not_sent"}\n', {}, "line 1: it has neither a target nor an id"),
    ("JSON of a strange state", '{"id": 1, "state": ["done"]}\n', {}, "line 1: '' is no outcome"),
    ("JSON of another shape", '{"id": 1, "state": "not_sent"}\n5\n', {}, "line 2: '5' is not a JSON object"),
    ("a JSON list", '[{"id": 1}]\n', {}, "a JSON document, not JSON Lines"),
    ("indented JSON", '{\n  "id": 1\n}\n', {}, "a JSON document, not JSON Lines"),
    ("deep JSON", f'{{"id": {"[" * 100_000}', {}, "line 1: this is"),
    ("cp1251", f"имя;id\nновости;{A}\n".encode("cp1251"), ID, "f, line 1: .*not text in UTF-8.*--encoding cp1251"),
    ("koi8-r", f"имя;id\nновости;{A}\n".encode("koi8-r"), ID, "--encoding koi8-r"),
    ("cp866", f"имя;id\nновости;{A}\n".encode("cp866"), ID, "--encoding cp866"),
    ("cp1252", f"name;id\ncafé crème;{A}\n".encode("cp1252"), ID, "f, line 2: .*--encoding cp1252"),
    ("UTF-16 without its mark", f"{A}\n".encode("utf-16-le"), {}, "--encoding utf-16-le"),
    ("a cut UTF-16", f"{A}\n".encode("utf-16")[:-1], {}, "this is not text in UTF-16"),
    ("another encoding", "\u20ac\n", {"encoding": "ascii"}, "f, line 1: this is not text in ascii"),
    ("no encoding", "1\n", {"encoding": "cp12"}, "--encoding 'cp12' is not known"),
    ("no encoding of text", "1\n", {"encoding": "hex"}, "--encoding 'hex' is not known"),
    ("NUL bytes", b"1\n2\n\0\0\0\0", {}, "f is a binary file"),
    ("NUL bytes far below", b"10000\n" * 20_000 + b"\0\0", {}, "f, line 20001: it holds a NUL byte"),
    ("a PDF", b"%PDF-1.7\n1\n", {}, "f is a PDF"),
    ("an old workbook", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), {}, r"f is an old Excel or Word file"),
    ("a ZIP archive", zipped("ids.csv"), {}, "f is a ZIP archive"),
    ("a Word document", zipped("word/document.xml"), {}, "f is a Word document"),
    ("an OpenDocument sheet", zipped("content.xml"), {}, "f is an OpenDocument file"),
    ("a binary workbook", zipped("xl/workbook.bin"), {}, "f is a binary Excel workbook"),
    ("a cut workbook", workbook([[A]])[:-100], {}, "f is a damaged workbook"),
    ("a changed digit", flipped(), {}, "f is a damaged workbook: get it again"),
    ("an archive with a part twice", parts_of_one_name(), {}, "f is a damaged workbook"),
    ("a missing shared string", raw('<c t="s"><v>9</v></c>', strings="<si><t>1</t></si>"), {}, "f is a damaged workb"),
    ("a sheet that is no XML", raw("<c><v>1</v></c></row><row><c r='!'/>"), {}, "f is a damaged workbook"),
    ("a number with a reference", raw("<c><v>1&#50;3</v></c>"), {}, "f: the value of the cell A1 is written in a way"),
    ("a number with a comment", raw("<c><v>1<!-- -->2</v></c>"), {}, "f: the value of the cell A1 is written in a way"),
    ("a number with CDATA", raw("<c><v>1<![CDATA[2]]></v></c>"), {}, "the value of the cell A1 is written in a way"),
    ("a number with an instruction", raw("<c><v>1<?x y?>2</v></c>"), {}, "the value of the cell A1 is written in"),
    ("a number with an element", raw("<c><v>1<b>2</b></v></c>"), {}, "the value of the cell A1 is written in a way"),
    ("a number twice", raw("<c><v>1</v><v>2</v></c>"), {}, "the value of the cell A1 is written in a way"),
    (
        "an index with a reference",
        raw('<c t="s"><v>0&#49;</v></c>', strings=f"{STRING}{STRING}"),
        {},
        "cell A1 is written",
    ),
    ("a cell twice", raw('<c r="A1"><v>5</v></c><c r="A1"><v>6</v></c>'), {}, "f: its cells are not in order .'A1'"),
    ("a cell of another row", raw('<c r="A7"><v>5</v></c>'), {}, "f: its cells are not in order .'A7' in row 1"),
    ("a row twice", raw('<c><v>5</v></c></row><row r="1"><c><v>6</v></c>'), {}, "f: its rows are not in order"),
    ("a row of no height", raw("<c><v>5</v></c>", row='ht="0" customHeight="1"'), {}, "cell A1: the row is hidden"),
    ("a hidden column", raw("<c><v>5</v></c>", before=cols('hidden="1"')), {}, "f: the column A of the ids is hidden"),
    (
        "a column of no width",
        raw("<c><v>5</v></c>", before=cols('width="0"')),
        {},
        "f: the column A of the ids is hidd",
    ),
    ("columns of no width", raw("<c><v>5</v></c>", before='<sheetFormatPr defaultColWidth="0"/>'), {}, "is hidden"),
    ("an id under a merged area", raw(TWO_ROWS, after=merged("A1:A2")), {}, "cell A2: the merged area A1:A2 hides"),
    ("an id beside a merged area", raw(TWO_COLUMNS, after=merged("A1:B2")), ID, "cell B2: the merged area A1:B2 hides"),
    ("a text that is not displayed", raw('<c t="str" s="1"><v>5</v></c>', styles=styles(";;;")), {}, "displayed other"),
    *(
        (f"displayed as {code}", raw('<c s="1"><v>5</v></c>', styles=styles(code)), {}, "A1: 5 is displayed otherwise")
        for code in (
            ";;;",
            "[&lt;1000]0;0.0",
            "[=5]0;0.00",
            "[$5]0",
            "[$USD-409]0",
            "[DBNum1]0",
            "0*5",
            "[$-2000401]0",
        )
    ),
    ("an empty workbook part", zipped("xl/workbook.xml"), {}, "f is a damaged workbook"),
    ("bzip2", bz2.compress(b"1\n"), {}, "f is a bzip2 archive"),
    ("a web page", "<!DOCTYPE html><html>1</html>", {}, "f is a web page"),
    ("a page as a workbook", "<table><tr><td>1</td></tr></table>", {}, "f is a web page"),
    ("cut gzip", gzip.compress(f"{A}\n".encode() * 99)[:-9], {}, "f ends too early"),
    ("damaged gzip", gzip.compress(os.urandom(999))[:500] + b"x" * 600, {}, "f is a damaged gzip file|is a binary"),
    ("gzip twice", gzip.compress(gzip.compress(b"1\n")), {}, "f is packed twice"),
    ("gzip of a PDF", gzip.compress(b"%PDF-1.7"), {}, "f is a PDF"),
    ("a line of no end", "1" * 2_000_000, {}, "f, line 1: this line is longer than"),
    ("a title of no end", f"a\n{'x' * 3_000_000}\n", ID, "line 2: this line is longer|no column"),
    ("empty", "", {}, "f holds no ids"),
    ("empty with a column", "", ID, "f holds no ids: the file is empty"),
    ("a header alone", "id,name\n", ID, "f holds no ids"),
    ("a sheet of text", f"{A}\n", {"sheet": "One"}, "--sheet is for workbooks"),
    ("an encoding of a workbook", workbook([[A]]), {"encoding": "cp1251"}, "--encoding is for text"),
    ("two sheets", workbook([[A]], more=[("Two", [[B]], "visible")]), {}, "2 sheets .*'Sheet', 'Two'.*--sheet 'Sheet'"),
    ("no such sheet", workbook([[A]]), {"sheet": "Two"}, "f has no sheet 'Two': it has 'Sheet'"),
    ("an empty workbook", workbook([]), {}, "f holds no ids: it has no sheet"),
    ("hidden sheets only", workbook([], more=[("Two", [[B]], "hidden")]), {}, "but the hidden 'Two'"),
    ("two columns", workbook([["id", "x"], [A, 1]]), {}, "has 2 columns: name the one.*--column NAME"),
    ("one column with a name", workbook([["id"], [A]]), {}, "'id' is not an id; if it is a header: --column 'id'"),
    ("no such column", workbook([["idd", "x"], [A, 1]]), ID, "no column 'id': 'idd', 'x'; did you mean --column 'idd'"),
    ("a date", workbook([["x", "id"], [1, A], [1, datetime.date(2026, 1, 2)]]), ID, "cell B3: 2026-01-02 is not an id"),
    ("a time", workbook([["id"], [datetime.time(1, 2)]]), ID, "cell A2: 01:02:00 is not an id: .*date or a time"),
    ("a truth value", workbook([["id"], [True]]), ID, "cell A2: TRUE is not an id"),
    ("a fraction", workbook([["id"], [1.5]]), ID, "cell A2: 1.5 is not an id"),
    ("a negative number", workbook([["id"], [-5]]), ID, "cell A2: '-5' is not an id.*sign"),
    ("zero", workbook([["id"], [0]]), ID, "cell A2: '0' is not an id"),
    ("16 digits", workbook([["id"], [1234567890123456]]), ID, "cell A2: 1234567890123456 is not surely.*15 digits"),
    ("a huge number", workbook([["id"], [1e300]]), ID, "cell A2: .*15 digits"),
    ("an error", workbook([["id", "x"], [Formula("#REF!"), 1]]), ID, "cell A2: '#REF!' is not an id.*formula failed"),
    ("an error alone", workbook([["id"], [A], [Formula("#N/A")]]), ID, "cell A3: '#N/A' is not an id"),
    ("an error elsewhere alone", workbook([["id", "x"], [A, 1], [None, Formula("#N/A")]]), ID, "cell A3: '' is not an"),
    ("a formula without a result", workbook([["id"], ["=1+1"]]), ID, "cell A2: a formula without a result"),
    ("no id", workbook([["id", "x"], [None, 1]]), ID, "cell A2: '' is not an id.*the cell is empty"),
    ("a percentage", workbook([["id"], [Formatted(5, "0%")]]), ID, "cell A2: 5 is displayed otherwise"),
    ("an exponent", workbook([["id"], [Formatted(A, "0.00E+00")]]), ID, f"cell A2: {A} is displayed otherwise"),
    ("decimals", workbook([["id"], [Formatted(A, "0.00")]]), ID, f"cell A2: {A} is displayed otherwise"),
    ("money", workbook([["id"], [Formatted(5, '#,##0" ₽"')]]), ID, "cell A2: 5 is displayed otherwise"),
    ("millions", workbook([["id"], [Formatted(A, "0,,")]]), ID, f"cell A2: {A} is displayed otherwise"),
    ("a hidden row", workbook([["id"], [A], [B]], hidden=[3]), ID, "cell A3: the row is hidden or filtered out"),
    ("a cell beyond", workbook([["id", "x"], [A, 1, 7]]), ID, "cell A2: the cell C2 stands beyond the header"),
    (
        "a line break in a cell",
        workbook([["id"], [f"{A}\n{B}"]]),
        ID,
        "cell A2: '10000000125.n10000000126' is not an id",
    ),
]


@pytest.mark.parametrize(("content", "options", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_file_is_refused(tmp_path: Path, content: str | bytes, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content, **options)


def test_twenty_bad_rows_are_shown(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="25 rows cannot be used") as raised:
        read(tmp_path, f"{A}\n" + "1.0E+10\n" * 25 + f"{B}\n")
    lines = str(raised.value).splitlines()
    assert len(lines) == 22
    assert lines[1].startswith("  line 2: '1.0E+10' is not an id")
    assert lines[-1] == "  and 5 more"


def test_missing_workbook_reader_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "python_calamine", None)
    with pytest.raises(ImportError, match=r"needs an extra: pip install 'dispatchkit\[cli\]'"):
        read(tmp_path, workbook([[A]]))


@pytest.mark.parametrize("limit", ["_MAX_WORKBOOK", "_MAX_UNPACKED"])
def test_a_workbook_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(files, limit, 100)
    with pytest.raises(ValueError, match="is larger than 0 MiB"):
        read(tmp_path, workbook([[A]]))


def test_folder_and_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Is a directory: name a file in it"):
        from_file(str(tmp_path), FileOptions())
    with pytest.raises(ValueError, match="/dev/zero is a device, not a file"):
        from_file("/dev/zero", FileOptions())


def test_pipe_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("1\n2\n",))
    writer.start()
    assert list(from_file(str(path), FileOptions())) == [1, 2]
    writer.join()


@pytest.mark.parametrize("content", [b"", b"5\n6\n", gzip.compress(b"5\n")[:12]], ids=["empty", "begun", "gzip"])
def test_nonblocking_input_is_refused(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    end, begin = os.pipe()
    os.set_blocking(end, False)
    with os.fdopen(end, encoding="utf-8") as stdin, os.fdopen(begin, "wb", buffering=0) as writer:
        writer.write(content)
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(ValueError, match="standard input does not block, so its end cannot be told"):
            from_file("-", FileOptions())


def test_ended_nonblocking_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    end, begin = os.pipe()
    os.set_blocking(end, False)
    with os.fdopen(begin, "wb") as writer:
        writer.write(b"5\n6\n")
    with os.fdopen(end, encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert list(from_file("-", FileOptions())) == [5, 6]


def test_counts_name_left_out_ids(tmp_path: Path) -> None:
    states = ["done", "done", "unknown", "sending", "planned", "rejected"]
    rows = [{"target": index + 1, "state": state} for index, state in enumerate(states)] + [{"id": 1, "state": "done"}]
    path = tmp_path / "f"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    targets = from_file(str(path), FileOptions())
    assert (list(targets), targets.done, targets.unknown, targets.dropped) == ([5, 6], 2, 2, 0)
    assert targets.notes == ("1 of these are left in a run of a ledger, and a resume of that run launches them too.",)


def test_blocks_do_not_cut_lines(tmp_path: Path) -> None:
    ids = [*range(10**10, 10**10 + 30_000)]
    plain = "".join(f"{number}\n" for number in ids)
    assert read(tmp_path, plain) == ids
    assert read(tmp_path, plain.replace("\n", "\r\n")) == ids
    assert read(tmp_path, plain.encode("utf-16")) == ids
    assert read(tmp_path, "id,x\n" + plain.replace("\n", ",я\n"), column="id") == ids


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {"column": "id"}, "f holds no ids: the file is empty"),
        ("", {}, "f holds no ids: the file is empty"),
        ("1\n2\n", {"column": "id"}, "if the file has no header, leave --column out"),
        ("id|name\n1|x\n", {"column": "id"}, r"it seems to separate its columns by '\|': put a line sep=\| above it"),
    ],
)
def test_remedy_is_named(tmp_path: Path, content: str, options: Mapping[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content, **options)


def test_remedy_for_a_delimiter_works(tmp_path: Path) -> None:
    assert read(tmp_path, "sep=|\nid|name\n1|x\n", column="id") == [1]


def test_outcome_has_any_case(tmp_path: Path) -> None:
    assert read(tmp_path, "id,outcome\n1,DONE\n2,Unknown\n3,NOT_SENT\n") == [3]


def test_planned_counts_what_resume_launches(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("id,state\n1,planned\n2,not_sent\n3,done\n4,rejected\n")
    targets = from_file(str(path), FileOptions())
    assert targets.notes == ("2 of these are left in a run of a ledger, and a resume of that run launches them too.",)
    path.write_text("id,state\n2,not_sent\n")
    assert from_file(str(path), FileOptions()).notes == ()
