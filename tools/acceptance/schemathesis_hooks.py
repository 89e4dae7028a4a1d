"""schemathesis' check that a body which follows its schema is taken, but for refusals that no schema can express: of fields that contradict
each other, of what the model or its context lacks, and of what does not fit into memory."""

import re

import schemathesis

BEYOND = re.compile(
    r"context|vocabulary|the tokenizer has no token|ask for fewer tokens|which makes \d+ answers"
    r"|needs stream to be true|needs logprobs to be true|differ; send the latter alone|best_of is|dimensions is \d+; this model"
    r"|cannot be enforced|asks for calls, but the request has no tools|the final message cannot be continued|as an earlier tool's name is"
    r"|are both given; send the latter alone|differs from reasoning_content, its other name|asks for a form of the answer beside"
    r"|which is none of the request's tools|is not here: it was forgotten|an item of no response that is kept"
    # A schema as a string is JSON within JSON.
    r"|is not JSON|it has to be an object"
)


@schemathesis.check
def a_body_that_follows_its_schema_is_taken(ctx, response, case):
    if case.meta and case.meta.generation.mode.is_positive and response.status_code == 400:
        message = response.json()["error"]["message"]
        assert BEYOND.search(message), message
