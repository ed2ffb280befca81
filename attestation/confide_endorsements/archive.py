"""One file of cached documents for a machine without network: deterministic CBOR, every document judged on import.

{purpose: "confide.endorsement-cache.v1", documents: [{kind, id, url, fetched_at, data}, …]}
"""

from collections.abc import Sequence
from typing import Any, Final

from confide_attestation.errors import EvidenceMalformed
from confide_protocol import cbor
from confide_protocol.errors import ProtocolError

from confide_endorsements.cache import MAX_DOCUMENTS, Cache, is_text, split_key
from confide_endorsements.documents import Kind, Name, document_end

PURPOSE: Final = "confide.endorsement-cache.v1"
MAX_ARCHIVE_BYTES = 64 << 20
_FIELDS = {"kind", "id", "url", "fetched_at", "data"}
Archived = tuple[Name, bytes, int]


def encode_archive(documents: Sequence[Archived]) -> bytes:
    """Encode documents with the times at which they were fetched."""
    rows = [
        {"kind": name.kind.value, "id": name.id, "url": name.url, "fetched_at": fetched_at, "data": data}
        for name, data, fetched_at in documents
    ]
    return cbor.encode({"purpose": PURPOSE, "documents": rows})


def parse_archive(data: bytes) -> tuple[Archived, ...]:
    """Parse a file; makes no trust claim. Raises: EvidenceMalformed, also if a document is none of its kind."""
    try:
        tree = cbor.decode(data, max_bytes=MAX_ARCHIVE_BYTES)
    except ProtocolError:
        tree = None
    if not isinstance(tree, dict) or tree.get("purpose") != PURPOSE or set(tree) != {"purpose", "documents"}:
        raise EvidenceMalformed(
            "expected a file that `confide endorsements export` wrote, found one of another kind"
        )
    rows = tree["documents"]
    if not isinstance(rows, list) or len(rows) > MAX_DOCUMENTS:
        raise EvidenceMalformed(f"expected at most {MAX_DOCUMENTS} documents")
    return tuple(_document(row) for row in rows)


def archived(cache: Cache) -> tuple[Archived, ...]:
    """Return all of a cache's documents that are whole, in the order of their names."""
    found = []
    for key, entry in sorted(cache.entries().items()):
        kind, document_id = split_key(key)
        document = cache.find(kind, document_id)
        if document is not None:
            found.append((Name(kind, document_id, entry.url), document.data, document.fetched_at))
    return tuple(found)


def _document(row: Any) -> Archived:  # noqa: ANN401 - decoded CBOR
    if not isinstance(row, dict) or set(row) != _FIELDS:
        raise EvidenceMalformed("a document needs exactly the fields " + ", ".join(sorted(_FIELDS)))
    texts = [row[name] for name in ("kind", "id", "url")]
    if not all(map(is_text, texts)):
        raise EvidenceMalformed("a document's kind, id or URL is no short text")
    if row["kind"] not in tuple(Kind):
        raise EvidenceMalformed("a document of a kind that is unknown here")
    if not isinstance(row["data"], bytes) or type(row["fetched_at"]) is not int or row["fetched_at"] < 0:
        raise EvidenceMalformed("a document without its bytes, or the time at which it was fetched")
    name = Name(Kind(row["kind"]), row["id"], row["url"])
    document_end(name.kind, row["data"])
    return name, row["data"], row["fetched_at"]
