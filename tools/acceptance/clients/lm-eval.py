"""lm-eval against the bundled model: its log-likelihoods are mlx-lm's, and chats and continuations are answered."""

import json
import subprocess
import sys

from cases import *

ROOT = Path(os.environ["ACCEPTANCE_ROOT"])
FOLDER = ROOT / "models/rustbook-5m-4bit"
TASKS = Path.cwd() / "tasks"


def prepare():
    """The tasks, with the path of their questions."""
    TASKS.mkdir(exist_ok=True)
    source = ROOT / "tools/acceptance/lm-eval"
    for task in source.glob("*.yaml"):
        (TASKS / task.name).write_text(task.read_text().replace("DATA", str(source / "questions.jsonl")))


def evaluate(kind, route, *tasks, more=()):
    """Samples of each task."""
    prepare()
    out = Path.cwd() / kind / "-".join(tasks)
    settings = f"model={BUNDLED},base_url={V1}/{route},tokenizer={FOLDER},tokenizer_backend=huggingface,num_concurrent=4,max_retries=1"
    command = [sys.executable, "-m", "lm_eval", "--model", kind, "--model_args", settings, "--include_path", str(TASKS), "--tasks"]
    command += [",".join(f"acceptance_{task}" for task in tasks), "--output_path", str(out), "--log_samples", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for task in tasks:
        (path,) = out.rglob(f"samples_acceptance_{task}_*.jsonl")
        found[task] = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(found[task]) == 4, found
    return found


class Reference:
    """The bundled model in mlx-lm, in float32."""

    def __init__(self):
        import mlx.core as mx
        from mlx.utils import tree_map
        from mlx_lm.utils import load

        self.mx = mx
        self.model, self.tokenizer = load(str(FOLDER))
        widened = lambda value: value.astype(mx.float32) if mx.issubdtype(value.dtype, mx.floating) else value
        self.model.update(tree_map(widened, self.model.parameters()))

    def score(self, context, continuation):
        """The continuation's log-likelihood after the context, both encoded together."""
        before, all = self.tokenizer.encode(context), self.tokenizer.encode(context + continuation)
        logits = self.model(self.mx.array([all[:-1]]))[0]
        logprobs = logits - self.mx.logsumexp(logits, axis=-1, keepdims=True)
        return sum(logprobs[at - 1, all[at]].item() for at in range(max(len(before), 1), len(all)))


@case
def likelihoods_of_choices_are_mlx_lms():
    reference, most = Reference(), 0.0
    for task, samples in evaluate("local-completions", "completions", "choice", "swapped").items():
        for sample in samples:
            assert sample["acc"] == 1.0, (task, sample)
            for arguments, answers in zip(sample["arguments"].values(), sample["resps"], strict=True):
                said = float(answers[0][0])
                right = reference.score(arguments["arg_0"], arguments["arg_1"])
                most = max(most, abs(said - right))
                assert abs(said - right) < 1e-3, (arguments, said, right)
    print(f"the largest difference is {most:.2g}")


@case
def a_rolling_likelihood_is_mlx_lms():
    reference = Reference()
    for sample in evaluate("local-completions", "completions", "rolling")["rolling"]:
        text = sample["arguments"]["gen_args_0"]["arg_0"]
        said = float(sample["resps"][0][0])
        # The first token is scored after the tokenizer's own beginning.
        tokens = reference.tokenizer.encode(text)
        begin = reference.tokenizer.bos_token_id or reference.tokenizer.eos_token_id
        logits = reference.model(reference.mx.array([[begin, *tokens[:-1]]]))[0]
        logprobs = logits - reference.mx.logsumexp(logits, axis=-1, keepdims=True)
        right = sum(logprobs[at, token].item() for at, token in enumerate(tokens))
        assert abs(said - right) < 1e-3, (text, said, right)


@case
def continuations_are_answered():
    for sample in evaluate("local-completions", "completions", "continued")["continued"]:
        assert sample["resps"][0][0], sample


@case
def chats_are_answered():
    for sample in evaluate("local-chat-completions", "chat/completions", "continued", more=("--apply_chat_template",))["continued"]:
        assert sample["resps"][0][0], sample


main()
