// What installed npm packages must do: be imported from a project, whose folder is the argument, and answer with their bundled model.

import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const resolved = createRequire(join(process.argv[2], "index.js")).resolve("mlx-serving");
const { createEngine, version } = await import(pathToFileURL(resolved));
console.log("imported", version, "in Node.js", process.version, "from", resolved);

const engine = await createEngine();
const model = await engine.loadModel();
const messages = [{ role: "user", content: "What Is Ownership?" }];
const { text, stats } = await engine.generate({ messages, maxTokens: 8, temperature: 0 });
await engine.dispose();
console.log(model.id, "on", model.device, "answers", JSON.stringify(text));
if (stats.completionTokens !== 8) throw new Error(`that are ${stats.completionTokens} tokens instead of 8`);
