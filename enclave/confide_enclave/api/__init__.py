"""The OpenAI API inside the seal: one decrypted request in, one answer in batches of events out."""

from confide_enclave.api.answer import Answer, ApiRequest, Record, refuse
from confide_enclave.api.routes import Api

__all__ = ["Answer", "Api", "ApiRequest", "Record", "refuse"]
