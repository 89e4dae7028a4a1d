// Anthropic's client in Node.js: messages, tools, counts of tokens, streams.

import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { ASK_BOTH, ASK_HELLO, ASK_MORE, ASK_WEATHER, HELLO, MODEL, MORE, REPORT, URL, WEATHER, test, user } from "./cases.mjs";

const client = new Anthropic({ baseURL: URL, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const tools = [{ name: "get_weather", description: "The weather in a city.", input_schema: WEATHER }];
const ask = (messages, more = {}) => client.messages.create({ model: MODEL, max_tokens: 300, messages, ...more });
const text = ({ content }) => content.filter(({ type }) => type === "text").map(({ text }) => text).join("");

await test("a second turn echoes the answer's content", async () => {
  const { content } = await ask([user(ASK_HELLO)]);
  assert.equal(text({ content }), HELLO);
  assert.equal(text(await ask([user(ASK_HELLO), { role: "assistant", content }, user(ASK_MORE)])), MORE);
});

await test("a stream has the whole answer", async () => {
  const stream = client.messages.stream({ model: MODEL, max_tokens: 300, messages: [user(ASK_HELLO)] });
  let streamed = "";
  stream.on("text", (piece) => (streamed += piece));
  assert.equal(text(await stream.finalMessage()), HELLO);
  assert.equal(streamed, HELLO);
});

await test("a tool is used and its result answered", async () => {
  const { content, stop_reason } = await ask([user(ASK_WEATHER)], { tools });
  assert.equal(stop_reason, "tool_use");
  const use = content.find(({ type }) => type === "tool_use");
  assert.deepEqual(use.input, { city: "Paris" });
  const result = { type: "tool_result", tool_use_id: use.id, content: "sunny" };
  const messages = [user(ASK_WEATHER), { role: "assistant", content }, { role: "user", content: [result] }];
  assert.equal(text(await ask(messages, { tools })), REPORT);
});

await test("a streamed use is the whole one", async () => {
  const stream = client.messages.stream({ model: MODEL, max_tokens: 300, messages: [user(ASK_BOTH)], tools });
  const { content } = await stream.finalMessage();
  assert.deepEqual(content.filter(({ type }) => type === "tool_use").map(({ input }) => input), [{ city: "Paris" }, { city: "Rome" }]);
});

await test("tokens are counted as they are charged", async () => {
  const { input_tokens } = await client.messages.countTokens({ model: MODEL, messages: [user(ASK_HELLO)], tools });
  const { usage } = await ask([user(ASK_HELLO)], { tools });
  assert.equal(input_tokens, usage.input_tokens + usage.cache_read_input_tokens);
});

await test("errors are the package's own", async () => {
  await assert.rejects(ask([user("x")], { model: "no-such-model" }), Anthropic.NotFoundError);
  await assert.rejects(ask([user("x")], { temperature: -1 }), Anthropic.BadRequestError);
});
