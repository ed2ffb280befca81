"""Fields of what lies between hardware and software: Azure's HCL report, TPM quotes, PCRs, event logs."""

import json

from confide_attestation.eventlog.ccel import ALG_SHA384, END, HASHED_WHOLE, parse_ccel
from confide_attestation.eventlog.replay import EV_NO_ACTION
from confide_attestation.snp.abi import REPORT_BYTES
from confide_attestation.tdx.abi import BODY_BYTES, TdxQuote, parse_quote
from confide_attestation.vtpm.hcl import RUNTIME_AT, TDREPORT_BYTES, TDREPORT_FIELDS, Tee, parse_hcl

from tests.conformance import Field, Layout, checks
from tests.conformance.formats_cpu import snp_report
from tests.conformance.formats_nvidia import lay
from tests.conformance.spans import Span, fill, json_layout, json_spans, unescaped

_HCL_LENGTHS = checks("hcl_lengths", "hcl_reserved")
_RUNTIME = checks("runtime_digest")
_MAC = "only the machine that made it can check the TDREPORT's MAC and CPUSVN; the quote stands for the TD"


def hcl_report(data: bytes) -> Layout:
    report = parse_hcl(data)
    inner = snp_report(report.hardware) if report.tee is Tee.SNP else _tdreport()
    hardware_bytes = REPORT_BYTES if report.tee is Tee.SNP else TDREPORT_BYTES
    fields = list(
        lay(
            [
                ("magic", 4, checks("hcl_magic")),
                (f"version{report.version}", 4, checks("hcl_version")),
                ("size", 4, _HCL_LENGTHS),
                ("type", 4, checks("hcl_type")),
                ("reserved", 16, checks("hcl_reserved")),
            ]
        )
    )
    fields += [each.moved(32, "report.") for each in inner]
    at = 32 + hardware_bytes
    rest = [
        ("reserved_report", 32 + REPORT_BYTES - at, checks("hcl_reserved")),
        ("runtime_size", 4, _HCL_LENGTHS),
        ("runtime_version", 4, _HCL_LENGTHS),
        ("tee_type", 4, checks("hcl_tee_type", "hcl_foreign", "hcl_reserved")),
        ("hash_algorithm", 4, checks("hcl_hash_alg")),
        ("runtime_length", 4, _HCL_LENGTHS),
        ("runtime", len(report.runtime), _RUNTIME),
        ("padding", len(data) - RUNTIME_AT - len(report.runtime), checks("hcl_reserved")),
    ]
    return (*fields, *(each.moved(at) for each in lay(rest)))


def _tdreport() -> Layout:
    """Intel TDX Module ABI, TDREPORT_STRUCT: REPORTMACSTRUCT, TEE_TCB_INFO, reserved, TDINFO."""
    broken = checks("tdreport_format")
    fields = [
        Field("cpu_svn", 16, 32, dont_care=_MAC),
        Field("mac", 224, 256, dont_care=_MAC),
        *(Field(name, at, at + size, checks("tdreport_mismatch")) for name, (at, size) in TDREPORT_FIELDS.items()),
    ]
    return fill(fields, TDREPORT_BYTES, Field("form", 0, 0, broken))


def tpm_quote(data: bytes) -> Layout:
    """TPM 2.0 part 2, TPMS_ATTEST."""
    signed = checks("tpm_sig")
    form = signed | checks("tpm_format")
    signer = int.from_bytes(data[6:8], "big")
    extra = int.from_bytes(data[8 + signer : 10 + signer], "big")
    return lay(
        [
            ("magic", 4, checks("tpm_magic")),
            ("type", 2, checks("tpm_type")),
            ("signer_length", 2, form),
            ("signer", signer, signed),
            ("extra_data_length", 2, form),
            ("extra_data", extra, signed),
            ("clock", 16, signed),
            ("clock_safe", 1, form),
            ("firmware_version", 8, signed),
            ("bank_count", 4, form),
            ("bank", 2, checks("pcr_selection", "tpm_sig")),
            ("selection_length", 1, form),
            ("selection", 3, checks("pcr_digest", "tpm_sig")),
            ("digest_length", 2, form),
            ("pcr_digest", 32, checks("pcr_digest", "tpm_sig")),
        ]
    )


def tpm_signature(data: bytes) -> Layout:
    return (Field("signature", 0, len(data), checks("tpm_sig")),)


def pcrs(data: bytes) -> Layout:
    named = checks("pcrs_format", "pcr_digest")

    def value(span: Span) -> Field:
        return Field(f"pcr{span.path[0]}", span.start, span.end, named, hex_text=True)

    return json_layout(data, "pcrs", value, Field("form", 0, 0, checks("pcrs_format")))


_LOG = checks("log_format")
_REPLAYED = tuple(checks(f"rtmr{number}_replay_mismatch") | _LOG for number in range(4))
_UNMEASURED = "no register vouches for it: it is never shown, unless it can be recomputed from the digest"
_COPY = checks("log_quote_mismatch", "log_format")
_ALONE = "a log may come without a quote of its own"
_COMPARED = "of the copy that came with the log only the body is compared; the quote beside it is judged"
_HEAD = "the head extends no register: firmware numbers it 0 or 1"
_UNHEARD = "an event without action extends no register"


def event_log(data: bytes) -> Layout:
    return event_list(data) if data.lstrip()[:1] in (b"[", b"{") else ccel(data)


def ccel(data: bytes) -> Layout:
    """TCG PC Client Platform Firmware Profile, TCG_PCR_EVENT2 after one event of the old form."""
    parse_ccel(data)
    size = int.from_bytes(data[28:32], "little")
    count = int.from_bytes(data[56:60], "little")
    sizes = {
        int.from_bytes(data[60 + 4 * i : 62 + 4 * i], "little"): int.from_bytes(
            data[62 + 4 * i : 64 + 4 * i], "little"
        )
        for i in range(count)
    }
    fields = [
        Field("head.register", 0, 1, dont_care=_HEAD),
        Field("head.register", 1, 4, _LOG),
        Field("head.type", 4, 8, _LOG),
        Field("head.digest", 8, 28, dont_care=_UNHEARD),
        Field("head.size", 28, 32, _LOG),
        Field("head.spec_id", 32, 48, _LOG),
        Field("head.platform", 48, 56, dont_care=_UNHEARD),
        Field("head.algorithms", 56, 60 + 4 * count, _LOG),
        Field("head.vendor", 60 + 4 * count, 32 + size, _LOG),
    ]
    at = 32 + size
    while at < len(data) and int.from_bytes(data[at : at + 4], "little") != END:
        fields += _event(data, at, sizes)
        at = fields[-1].end
    if at < len(data):
        fields.append(Field("end", at, len(data), _LOG))
    return tuple(each for each in fields if each.size)


def ccel_events(data: bytes) -> list[tuple[int, int]]:
    """Return where each event lies that extends a register."""
    starts = [each.start for each in ccel(data) if each.name == "event.register"]
    ends = [each.start for each in ccel(data) if each.name == "end"] or [len(data)]
    spans = zip(starts, [*starts[1:], *ends], strict=True)
    return [
        (start, end)
        for start, end in spans
        if int.from_bytes(data[start + 4 : start + 8], "little") != EV_NO_ACTION
    ]


def _event(data: bytes, at: int, sizes: dict[int, int]) -> list[Field]:
    register, kind, count = (int.from_bytes(data[at + i : at + i + 4], "little") for i in (0, 4, 8))
    silent = kind == EV_NO_ACTION
    whole = checks("event_digest_mismatch") | _LOG
    replayed = frozenset[str]() if silent else _REPLAYED[register - 1]
    fields = [
        Field("event.register", at, at + 4, replayed | _LOG),
        Field("event.type", at + 4, at + 8, frozenset(), _UNMEASURED),
        Field("event.count", at + 8, at + 12, _LOG),
    ]
    at += 12
    for _ in range(count):
        algorithm = int.from_bytes(data[at : at + 2], "little")
        size = sizes[algorithm]
        named = replayed if algorithm == ALG_SHA384 else frozenset[str]()
        reason = _UNHEARD if silent else "" if named else "a digest of another bank than TDX's"
        fields.append(Field("event.algorithm", at, at + 2, _LOG))
        fields.append(Field("event.digest", at + 2, at + 2 + size, named, reason))
        at += 2 + size
    size = int.from_bytes(data[at : at + 4], "little")
    # A wrong size moves all that follows.
    fields.append(Field("event.size", at, at + 4, _LOG.union(whole, *_REPLAYED)))
    hashed = kind in HASHED_WHOLE
    fields.append(
        Field("event.data", at + 4, at + 4 + size, whole if hashed else frozenset(), "" if hashed else _UNMEASURED)
    )
    return fields


def event_list(data: bytes) -> Layout:
    """dstack's list of events as JSON, or its answer of GetQuote."""
    text = data.decode("latin-1")
    if text.lstrip().startswith("["):
        return tuple(_events(text))
    fields: list[Field] = []
    for span in json_spans(text):
        name = str(span.path[0])
        inner = text[span.start : span.end]
        if name == "event_log" and not span.is_name:
            log, places = unescaped(inner)
            for each in _events(log):
                start, end = span.start + places[each.start], span.start + places[each.end]
                fields.append(Field(each.name, start, end, each.checks, each.dont_care, each.hex_text))
        elif name in ("quote", "report_data") and span.is_name:
            fields.append(Field(f"{name} (name)", span.start, span.end, dont_care=_ALONE))
        elif name == "quote":
            fields += _copy(span, parse_quote(bytes.fromhex(inner)))
        elif name == "report_data":
            fields.append(Field(name, span.start, span.end, _COPY, hex_text=True))
        elif not span.is_name or name != "event_log":
            fields.append(Field(name, span.start, span.end, dont_care="not read, and nothing of it is shown"))
    form = Field("form", 0, 0, _LOG)
    return fill([each for each in fields if each.size], len(data), form)


def _copy(span: Span, quote: TdxQuote) -> list[Field]:
    """Lay out the quote that came with the log; the one that is judged is given beside it."""
    size = len(quote.signed)
    body, end = (span.start + 2 * at for at in (size - BODY_BYTES[quote.body_type], size))
    return [
        Field("quote.head", span.start, body, dont_care=_COMPARED),
        Field("quote.body", body, end, _COPY, hex_text=True),
        Field("quote.signature", end, span.end, dont_care=_COMPARED),
    ]


def _events(text: str) -> Layout:
    tree = json.loads(text)
    fields = []
    for span in json_spans(text):
        if len(span.path) != 2:
            continue
        number, name = span.path
        assert isinstance(number, int)
        named, reason = _meaning(tree[number], str(name), is_name=span.is_name)
        is_hex = name in ("digest", "event_payload") and not span.is_name
        fields.append(
            Field(
                f"event.{name}" + (" (name)" if span.is_name else ""), span.start, span.end, named, reason, is_hex
            )
        )
    return fill([each for each in fields if each.size], len(text.encode("latin-1")), Field("form", 0, 0, _LOG))


def _meaning(event: dict[str, object], name: str, *, is_name: bool) -> tuple[frozenset[str], str]:
    register = event["imr"]
    assert isinstance(register, int)
    if name in ("imr", "digest"):
        return _REPLAYED[register] | (checks("event_digest_mismatch") if register == 3 else frozenset()), ""
    if register == 3 and is_name and not event[name]:
        return frozenset(), "absent stands for empty"
    if register == 3:
        return _LOG | checks("event_digest_mismatch", "rtmr3_replay_mismatch"), ""
    if name == "event_type" and is_name:
        return _LOG, ""
    return frozenset(), _UNMEASURED
