"""Endorsements for evidence: from the cache while they hold, else from their vendors, else a clear error."""

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from confide_attestation.errors import EndorsementsUnavailable, EvidenceMalformed
from confide_attestation.evidence import CpuKind, Endorsements, EvidenceBundle, SnpEndorsements, TdxEndorsements
from confide_attestation.nvidia.evidence import DeviceEvidence, NvidiaEndorsements
from confide_attestation.nvidia.ocsp import OcspAnswer
from confide_attestation.snp.abi import Product, Signer

from confide_endorsements import amd, azure, intel, nvidia
from confide_endorsements.cache import Cache, Found
from confide_endorsements.documents import LASTING, Name, document_end
from confide_endorsements.http import Http
from confide_endorsements.services import Services

# Documents that their vendors replace are asked for again when they are older, though they may still count.
MAX_AGE_S = 24 * 3600


class Store:
    """Gathers what judging evidence takes. Without `http` it never opens a socket.

    Whatever it returns is untrusted: nothing is verified here but that it is what was asked for.
    Raises: EndorsementsUnavailable; EvidenceMalformed if the evidence does not say what it needs.
    """

    def __init__(
        self,
        cache: Cache,
        http: Http | None,
        services: Services | None = None,
        *,
        refresh: bool = False,
        now_unix_s: Callable[[], int] = lambda: int(time.time()),
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`refresh` asks again for what was kept before; `tell` hears when a kept document must do."""
        self.cache, self.http, self.services = cache, http, services or Services()
        self._now, self._tell = now_unix_s, tell
        self._not_before = now_unix_s() if refresh else 0

    async def snp(
        self, report: bytes, *, product: Product | None = None, from_azure: bool = False
    ) -> SnpEndorsements:
        """Gather VCEK, ASK, ARK and AMD's list for a report, or for an HCL report's; on Azure from the machine."""
        chip = amd.chip_of(azure.snp_report_of(report), product)
        kds = self.services.kds
        vcek, chain, crl = chip.name(kds), amd.chain_name(chip.product, kds), amd.crl_name(chip.product, kds)
        if from_azure:
            await self._from_azure(chip, vcek, chain)
        vek = await self._obtain(vcek, partial(amd.fetch_vcek, chip=chip, name=vcek), partial(amd.vcek_of, chip))
        return await self._above(vek, chain, crl)

    async def vlek(self, der: bytes) -> SnpEndorsements:
        """Gather ASVK, ARK and AMD's list for a cloud's VLEK, which its machines hold themselves."""
        product, kds = amd.vlek_product(der), self.services.kds
        return await self._above(
            der, amd.chain_name(product, kds, Signer.VLEK), amd.crl_name(product, kds, Signer.VLEK)
        )

    async def _above(self, vek: bytes, chain: Name, crl: Name) -> SnpEndorsements:
        ask, ark = amd.split_chain(await self._obtain(chain, partial(amd.fetch_chain, name=chain)))
        return SnpEndorsements(vek, ask, ark, await self._obtain(crl, partial(amd.fetch_crl, name=crl)))

    async def tdx(self, quote: bytes) -> TdxEndorsements:
        """Gather Intel's four documents for a quote's platform."""
        platform = intel.platform_of(quote)
        documents = []
        for name in platform.names(self.services.pcs, self.services.root_crl):
            fetch, fits = (
                partial(intel.fetch, platform=platform, name=name),
                partial(intel.demand_platform, platform),
            )
            documents.append(await self._obtain(name, fetch, fits))
        return TdxEndorsements(intel.collateral(tuple(documents)))

    async def nvidia(self, devices: Sequence[DeviceEvidence]) -> NvidiaEndorsements:
        """Gather manifests for devices, and OCSP answers for the devices' certificates and the manifests'."""
        needs = nvidia.needs_of(devices)
        rims, questions = [], dict.fromkeys(needs.questions)
        for rim_id in needs.rim_ids:
            name = nvidia.rim_name(rim_id, self.services.rim)
            rim = await self._obtain(name, partial(nvidia.fetch_rim, name=name))
            rims.append(rim)
            questions |= dict.fromkeys(nvidia.questions_of_rim(rim))
        answers = []
        for question in questions:
            name = question.name(self.services.ocsp)
            fetch = partial(nvidia.fetch_answer, question=question, name=name)
            answers.append(OcspAnswer(await self._obtain(name, fetch, partial(nvidia.demand_answer, question))))
        return NvidiaEndorsements(tuple(rims), tuple(answers))

    async def bundle(self, evidence: EvidenceBundle) -> Endorsements:
        """Gather for the machine that shows this evidence: for its processor and all of its devices."""
        cpu, snp, tdx = evidence.cpu, None, None
        if cpu.kind in (CpuKind.SEV_SNP, CpuKind.AZURE_SEV_SNP):
            snp = await self.snp(cpu.report)
        elif cpu.kind is CpuKind.TDX:
            tdx = await self.tdx(cpu.report)
        else:
            tdx = await self.tdx(b"" if cpu.vtpm is None else cpu.vtpm.td_quote)
        devices = [DeviceEvidence(gpu.report, gpu.certificate_chain) for gpu in evidence.gpus]
        return Endorsements(snp, tdx, await self.nvidia(devices) if devices else None)

    async def _obtain(
        self,
        name: Name,
        fetch: Callable[[Http], Awaitable[bytes]],
        fits: Callable[[bytes], object] = lambda _: None,
    ) -> bytes:
        """Return a document; `fits` raises EvidenceMalformed if the one that is kept is another's."""
        now = self._now()
        found = self._kept(name, fits)
        holds = found is not None and now < found.expires_at
        if found is not None and holds and (self.http is None or not self._aged(name, found, now)):
            return found.data
        if self.http is None:
            ended = "" if found is None else f"; what is kept ended at {_utc(found.expires_at)}"
            because = f"it is not in {self.cache.folder}, and no network is asked{ended}"
            raise EndorsementsUnavailable(name.title, name.url, because)
        try:
            return self._keep(name, await fetch(self.http), now)
        except EvidenceMalformed as fault:
            missing = EndorsementsUnavailable(name.title, name.url, f"the answer is not usable: {fault}")
        except EndorsementsUnavailable as fault:
            missing = fault
        if found is None or not holds:
            raise missing from None
        self._tell(f"{name.title}: {missing.because}; the one fetched at {_utc(found.fetched_at)} still counts")
        return found.data

    def _kept(self, name: Name, fits: Callable[[bytes], object]) -> Found | None:
        found = self.cache.find(name.kind, name.id)
        try:
            if found is not None:
                fits(found.data)
        except EvidenceMalformed as fault:
            # An imported file may have said anything of its documents.
            self._tell(f"{name.title} in {self.cache.folder}: {fault}; it counts as absent")
            return None
        return found

    def _aged(self, name: Name, found: Found, now: int) -> bool:
        # A time to come is not one at which anything was fetched.
        if not self._not_before <= found.fetched_at <= now:
            return True
        return name.kind not in LASTING and now - found.fetched_at >= MAX_AGE_S

    def _keep(self, name: Name, data: bytes, now: int) -> bytes:
        if document_end(name.kind, data) <= now:
            raise EvidenceMalformed(f"it ended at {_utc(document_end(name.kind, data))}")
        self.cache.put(name, data, now_unix_s=now)
        return data

    async def _from_azure(self, chip: amd.Chip, vcek: Name, chain: Name) -> None:
        """Put into the cache what the machine's own metadata service says, unless it is there."""
        now = self._now()
        both = [(name, self.cache.find(name.kind, name.id)) for name in (vcek, chain)]
        if self.http is None or all(
            found and now < found.expires_at and not self._aged(name, found, now) for name, found in both
        ):
            return
        url = self.services.metadata + azure.PATH
        try:
            found = await azure.fetch_certificates(self.http, chip, self.services.metadata)
            for name, data in zip((vcek, chain), found, strict=True):
                self._keep(name, data, now)
        except EvidenceMalformed as fault:
            raise EndorsementsUnavailable(vcek.title, url, f"the answer is not usable: {fault}") from None


def _utc(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
