// The AI SDK with its providers for OpenAI-compatible servers, OpenAI (Responses by default) and Anthropic.

import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embedMany, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { ASK_HELLO, ASK_JSON, ASK_MORE, ASK_THINK, ASK_WEATHER, EMBEDDER, FOUR, HELLO, MODEL, MORE, REPORT, THOUGHT, V1, test, user } from "./cases.mjs";

const compatible = createOpenAICompatible({ name: "mlx", baseURL: V1, includeUsage: true, supportsStructuredOutputs: true });
const loose = createOpenAICompatible({ name: "mlx", baseURL: V1 });
const openai = createOpenAI({ baseURL: V1, apiKey: "none" });
const anthropic = createAnthropic({ baseURL: V1, apiKey: "none" });
const models = {
  "openai-compatible": compatible.chatModel(MODEL),
  "openai chat": openai.chat(MODEL),
  "openai responses": openai.responses(MODEL),
  anthropic: anthropic(MODEL),
};
const City = z.object({ city: z.string(), celsius: z.number().int() });
const settings = { maxRetries: 0, maxOutputTokens: 300 };

for (const [name, model] of Object.entries(models)) {
  await test(`${name}: an answer is the same whole and streamed`, async () => {
    assert.equal((await generateText({ ...settings, model, prompt: ASK_HELLO })).text, HELLO);
    const stream = streamText({ ...settings, model, prompt: ASK_HELLO, onError: ({ error }) => { throw error; } });
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    assert.equal(text, HELLO);
    assert((await stream.usage).outputTokens > 0);
  });

  await test(`${name}: a second turn echoes the answer's messages`, async () => {
    const { response } = await generateText({ ...settings, model, prompt: ASK_HELLO });
    const messages = [user(ASK_HELLO), ...response.messages, user(ASK_MORE)];
    assert.equal((await generateText({ ...settings, model, messages })).text, MORE);
  });

  await test(`${name}: a tool is run and its result answered, whole and streamed`, async () => {
    const asked = [];
    const tools = {
      get_weather: tool({
        description: "The weather in a city.",
        inputSchema: z.object({ city: z.string() }),
        execute: async ({ city }) => (asked.push(city), "sunny"),
      }),
    };
    const request = { ...settings, model, prompt: ASK_WEATHER, tools, stopWhen: stepCountIs(3) };
    const { text, response } = await generateText(request);
    assert.equal(text, REPORT);
    const stream = streamText({ ...request, onError: ({ error }) => { throw error; } });
    assert.equal(await stream.text, REPORT);
    assert.deepEqual(asked, ["Paris", "Paris"]);
    const messages = [user(ASK_WEATHER), ...response.messages, user(ASK_MORE)];
    assert.equal((await generateText({ ...settings, model, messages, tools })).text, MORE);
  });

  await test(`${name}: an object follows its schema`, async () => {
    const { output } = await generateText({ ...settings, model, prompt: ASK_JSON, output: Output.object({ schema: City }) });
    City.parse(output);
  });
}

await test("openai-compatible: without a schema's support an object still comes", async () => {
  const { output } = await generateText({ ...settings, model: loose.chatModel(MODEL), prompt: ASK_JSON, output: Output.object({ schema: City }) });
  City.parse(output);
});

await test("openai-compatible: reasoning is apart", async () => {
  const { text, reasoningText } = await generateText({ ...settings, model: compatible.chatModel(MODEL), prompt: ASK_THINK });
  assert.deepEqual([text.trim(), reasoningText.trim()], [FOUR, THOUGHT]);
});

await test("openai-compatible: completions continue texts", async () => {
  const { text } = await generateText({ ...settings, model: compatible.completionModel(MODEL), prompt: "<|answer:hello|>" });
  assert.equal(typeof text, "string");
});

await test("openai-compatible: embeddings come", async () => {
  const model = compatible.textEmbeddingModel?.(EMBEDDER) ?? compatible.embeddingModel(EMBEDDER);
  assert.equal((await embedMany({ model, values: ["a cat", "a dog"] })).embeddings.length, 2);
});
