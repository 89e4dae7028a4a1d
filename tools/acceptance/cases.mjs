// What the clients' scripts share: cases.py in JavaScript.

import { appendFileSync, readFileSync } from "node:fs";

export const URL = process.env.ACCEPTANCE_URL;
export const V1 = `${URL}/v1`;
export const [MODEL, BUNDLED, EMBEDDER] = ["scripted", "rustbook-5m-4bit", "embedder"];
const answers = JSON.parse(readFileSync(process.env.ACCEPTANCE_ANSWERS));
export const { hello: HELLO, more: MORE, report: REPORT } = answers;

export const ASK_HELLO = "Good day.";
export const ASK_MORE = "Is there more?";
export const ASK_WEATHER = "What is the weather in Paris?";
export const ASK_BOTH = "What is the weather in Paris and Rome?";
export const ASK_JSON = "Give me a city as JSON.";
export const ASK_THINK = "What do two and two make?";
export const [THOUGHT, FOUR] = ["Two and two make four.", "Four."];

export const WEATHER = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
export const TOOL = { type: "function", function: { name: "get_weather", description: "The weather in a city.", parameters: WEATHER } };

export const user = (text) => ({ role: "user", content: text });

/** Runs a case, whose name says what holds; it throws where the server surprised the client. */
export async function test(name, run) {
  const begin = performance.now();
  let fault = null;
  try {
    await run();
  } catch (error) {
    console.error(name, error);
    fault = `${error.name}: ${error.message}${error.responseBody ? ` ${error.responseBody}` : ""}`;
  }
  const seconds = Math.round((performance.now() - begin) / 10) / 100;
  appendFileSync(process.env.ACCEPTANCE_RECORD, `${JSON.stringify({ case: name, fault, seconds })}\n`);
}
