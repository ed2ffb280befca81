// For `python -m tests.conformance --kind snp --json --command "node client/js/test/judge.js …"`: one SEV-SNP report.
//   judge.js NOW REPORT VEK [--ask FILE] [--ark FILE] [--crl FILE] [--root FILE]
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { hex } from "../dist/bytes.js";
import { sha256 } from "../dist/hash.js";
import { AMD_ROOTS, simulatedRoots } from "../dist/snp/chain.js";
import { judgeSnp } from "../dist/snp/judge.js";

const file = { type: "string" };
const { values, positionals } = parseArgs({ allowPositionals: true, options: { ask: file, ark: file, crl: file, root: file } });
const [now, report, vek] = positionals;
const read = (path) => path && new Uint8Array(readFileSync(path));
const endorsements = { vek: read(vek), ask: read(values.ask), ark: read(values.ark), crl: read(values.crl) };
const roots = values.root ? simulatedRoots(hex(sha256(read(values.root)))) : AMD_ROOTS;
const part = await judgeSnp(read(report), endorsements, Number(now), undefined, roots);
console.log(JSON.stringify({ checks: part.checks }));
process.exitCode = part.holds ? 0 : 1;
