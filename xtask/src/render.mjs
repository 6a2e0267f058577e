// Renders D2 sources to SVG: node render.mjs <d2 module> <output folder> <source>…
// How a picture looks (theme, layout engine) is its source's own matter: `vars: { d2-config: … }`.
import { readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";

const [module, folder, ...sources] = process.argv.slice(2);
const { D2 } = await import(pathToFileURL(module));
const d2 = new D2();
let failed = false;

for (const source of sources) {
  const name = basename(source, ".d2");
  try {
    // The name keeps the ids of two pictures on one page apart.
    const compiled = await d2.compile(await readFile(source, "utf8"), { pad: 24, salt: name });
    const svg = await d2.render(compiled.diagram, compiled.renderOptions);
    await writeFile(join(folder, `${name}.svg`), `${svg.trimEnd()}\n`);
  } catch (error) {
    failed = true;
    for (const line of complaints(error)) console.error(`${basename(source)}:${line}`);
  }
}
// The renderer's worker thread would keep the process alive.
process.exit(failed ? 1 : 0);

/** The renderer reports a source's faults as a JSON list in the error's message; each says "index:line:column: fault". */
function complaints(error) {
  try {
    return JSON.parse(error.message).map(({ errmsg }) => errmsg.replace(/^index:/, ""));
  } catch {
    return [` ${error.message}`];
  }
}
