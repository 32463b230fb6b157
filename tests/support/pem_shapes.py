"""Shapes of a PEM file: what people and programs make of one, and what breaks it."""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"


def shapes(one: bytes, other: bytes) -> dict[str, bytes]:
    """Files of two blocks in PEM, by a name for each; what a reader finds in them is for it to say.

    :param one: a block, as it is written.
    :param other: another one of its kind.
    """
    begin, *lines, end = one.splitlines()
    comment = b"".join(b"#" + line for line in other.splitlines(keepends=True))
    blank = one.replace(begin, begin + b"\n", 1)
    name = begin.removeprefix(b"-----BEGIN ").removesuffix(b"-----")

    def before_begin(text: bytes) -> bytes:
        return text + one + other

    def with_header(header: bytes) -> bytes:
        return one.replace(begin + b"\n", begin + b"\n" + header + b"\n\n", 1) + other

    def renamed(new: bytes) -> bytes:
        return one.replace(name, new)

    return {
        "both": one + other,
        "one": one,
        "crlf": (one + other).replace(b"\n", b"\r\n"),
        "cr": (one + other).replace(b"\n", b"\r"),
        "bag_attributes": b"Bag Attributes\n    friendlyName: a root\n" + one + other,
        "commented_in_front": comment + one,
        "commented_behind": one + comment,
        "prose_that_mentions_begin": b"# paste below " + begin + b"\n" + one,
        "prose_behind_begin": begin + b" goes here\n" + one,
        "switched_off_by_hash": before_begin(b"#"),
        "switched_off_by_a_letter": before_begin(b"x"),
        "switched_off_by_a_semicolon": before_begin(b";"),
        "switched_off_by_a_blank": before_begin(b" "),
        "switched_off_by_a_tab": before_begin(b"\t"),
        "second_switched_off": other + b"#" + one,
        "both_switched_off": b"#" + one + b"#" + other,
        "begin_alone_switched_off_and_its_lines_too": comment,
        "indented": b"".join(b"  " + line for line in one.splitlines(keepends=True)) + other,
        "body_indented": b"\n".join([begin, *(b"  " + line for line in lines), end, b""]),
        "end_indented": b"\n".join([begin, *lines, b" " + end, b""]) + other,
        "blanks_behind_lines": one.replace(b"\n", b"  \n") + other,
        "blank_lines_around": b"\n\n" + one + b"\n\n" + other + b"\n\n",
        "blank_line_in_front_of_the_body": blank + other,
        "blank_line_in_the_body": b"\n".join([begin, *lines[:2], b"", *lines[2:], end, b""]),
        "two_blank_lines_in_the_body": b"\n".join([begin, b"", b"", *lines, end, b""]) + other,
        "glued": one.rstrip(b"\n") + other,
        "no_newline_at_the_end": (one + other).rstrip(b"\n"),
        "bom": BOM + one + other,
        "bom_in_the_middle": one + BOM + other,
        "utf_16": (one + other).decode().encode("utf-16"),
        "nul_line": b"\0\n" + one + other,
        "nul_between": one + b"\0\n" + other,
        "nul_behind_text": b"text\0text\n" + one + other,
        "nul_behind_begin": one.replace(begin, begin + b"\0", 1) + other,
        "body_in_one_line": b"\n".join([begin, b"".join(lines), end, b""]) + other,
        "body_of_76": b"\n".join([begin, *_wrapped(lines, 76), end, b""]) + other,
        "body_of_254": b"\n".join([begin, *_wrapped(lines, 254), end, b""]) + other,
        "body_of_255": b"\n".join([begin, *_wrapped(lines, 255), end, b""]) + other,
        "begin_at_column_254": b"#" * 254 + one + other,
        "begin_at_column_255": b"#" * 255 + one + other,
        "header_proc_type_clear": with_header(b"Proc-Type: 4,CLEAR"),
        "header_of_another_kind": with_header(b"Comment: a root"),
        "header_without_blank_line": one.replace(begin + b"\n", begin + b"\nA: b\n", 1) + other,
        "empty": b"",
        "only_text": b"nothing here\n",
        "only_blanks": b"\n \n",
        "x509_certificate": renamed(b"X509 CERTIFICATE") + other,
        "trusted_certificate": renamed(b"TRUSTED CERTIFICATE") + other,
        "trusted_certificate_alone": renamed(b"TRUSTED CERTIFICATE"),
        "of_an_unknown_name": renamed(b"SOMETHING") + other,
        "small_letters": one.replace(b"BEGIN", b"begin").replace(b"END", b"end") + other,
        "end_of_another_name": one.replace(end, b"-----END SOMETHING-----") + other,
        "no_end": b"\n".join([begin, *lines, b""]) + other,
        "end_in_front": end + b"\n" + one + other,
        "second_damaged": one + other[:-60],
        "second_without_a_line": one + b"".join(other.splitlines(keepends=True)[:2]),
        "second_not_base64": one + other.replace(b"\nM", b"\n!", 1),
        "body_empty": begin + b"\n" + end + b"\n" + other,
        "four_dashes": one.replace(begin, begin[1:], 1) + other,
        "six_dashes": one.replace(begin, b"-" + begin, 1) + other,
        "dashes_behind_begin": one.replace(begin, begin + b"-", 1) + other,
        "no_break_space_behind_begin": one.replace(begin, begin + b"\xa0", 1) + other,
        "equals_behind_the_body": one.replace(end, b"=\n" + end, 1) + other,
        "twice": one + one,
    }


def _wrapped(lines: list[bytes], width: int) -> list[bytes]:
    text = b"".join(lines)
    return [text[at : at + width] for at in range(0, len(text), width)]
