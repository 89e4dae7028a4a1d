"""Tests of check.py on pages and records made here."""

import json
import tempfile
import unittest
from pathlib import Path

import check

RECORD = {
    "findings": [{"arm": "pool", "figure": "throughput, tok/s", "change": -3.94, "interval": {"low": -8.86, "high": 10.58}}],
    "runs": [{"ms": 3.0}, {"ms": 1.0}, {"ms": 2.04}],
    "rate": 40.8,
}


class Pages(unittest.TestCase):
    """A page and a ledger, checked together."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        (self.root / "r.json").write_text(json.dumps(RECORD))

    def faults(self, text, **ledger):
        (self.root / "page.md").write_text(text)
        entries = {kind: [{"page": "page.md", **entry} for entry in entries] for kind, entries in ledger.items()}
        return check.check(self.root, entries, self.root, ["page.md"])

    def measured(self, text, *values):
        return {"record": [{"text": text, "file": "r.json", "values": list(values)}]}

    def test_a_figure_without_an_entry_is_a_fault(self):
        for text in ["It takes 5 ms.", "up by 10 to 15 %", "(−1.5 to +2.0)", "3.4 times as fast", "| 12 MiB |", "60 tok/s", "2 000 s",
                     "98-99 ms", "98 tokens per second", "9 requests per second", "98 percent", "98x", "98-fold", "9 milliseconds", "**98.7** times", "987 kB", "98 min"]:
            self.assertEqual(len(self.faults(text)), 1, text)

    def test_code_and_plain_numbers_are_no_figures(self):
        for text in ["`5 ms`", "```\n5 ms\n```", "    5 ms\n", "[a](b?5 ms)", "AVX-512", "version 0.9.0", "61 runs", "2026-11-25", "Qwen2.5"]:
            self.assertEqual(self.faults(text), [], text)

    def test_a_list_is_not_code(self):
        self.assertEqual(len(self.faults("- one\n    - it takes 5 ms\n")), 1)

    def test_a_figure_is_its_record_rounded(self):
        self.assertEqual(self.faults("takes 2.0 ms", **self.measured("2.0 ms", "median(runs[].ms)")), [])
        self.assertEqual(self.faults("takes 2 ms", **self.measured("2 ms", "median(runs[].ms)")), [])
        self.assertIn("says 2.1", self.faults("takes 2.1 ms", **self.measured("2.1 ms", "median(runs[].ms)"))[0])
        self.assertEqual(self.faults("takes 1 to 3 ms", **self.measured("1 to 3 ms", "least(runs[].ms)", "most(runs[].ms)")), [])
        self.assertEqual(self.faults("takes 0.02 s", **self.measured("0.02 s", "1 / rate")), [])
        self.assertEqual(self.faults("takes 3000 µs", **self.measured("3000 µs", "runs[0].ms * 1e3")), [])

    def test_a_minus_is_a_sign(self):
        self.assertEqual(self.faults("−3.9 %", **self.measured("−3.9 %", "findings[arm=pool].change")), [])
        self.assertEqual(len(self.faults("3.9 %", **self.measured("3.9 %", "findings[arm=pool].change"))), 1)

    def test_a_comparison_is_a_change_and_its_interval(self):
        text = "−3.9 % (−8.9 to +10.6)"
        comparison = [{"file": "r.json", "findings": {"pool/throughput": text}}]
        self.assertEqual(self.faults(text, comparison=comparison), [])
        wrong = [{"file": "r.json", "findings": {"ring/throughput": text}}]
        self.assertEqual(len(self.faults(text, comparison=wrong)), 3)

    def test_what_an_entry_names_must_be_there(self):
        self.assertIn("not in the record", self.faults("5 ms", **self.measured("5 ms", "no.such"))[0])
        self.assertIn("no number", self.faults("5 ms", **self.measured("5 ms", "findings[0].arm"))[0])
        self.assertIn("3 elements", self.faults("5 ms", **self.measured("5 ms", "runs[].ms"))[0])
        self.assertIn("2 values", self.faults("5 ms", **self.measured("5 ms", "rate", "rate"))[0])
        self.assertIn("which is not there", self.faults("", **self.measured("5 ms", "rate"))[0])
        missing = {"record": [{"text": "5 ms", "file": "other.json", "values": ["rate"]}]}
        self.assertIn("no record", self.faults("5 ms", **missing)[0])

    def test_a_test_must_have_what_it_is_said_to_assert(self):
        (self.root / "t.rs").write_text("assert!(share >= 0.95)")
        entry = {"text": "95 %", "file": "t.rs", "asserts": "share >= 0.95"}
        self.assertEqual(self.faults("95 %", test=[entry]), [])
        self.assertEqual(len(self.faults("95 %", test=[{**entry, "asserts": "share >= 0.96"}])), 1)

    def test_an_entry_covers_the_text_it_names_and_no_more(self):
        self.assertEqual(self.faults("at most\n8 MiB", given=[{"why": "a limit", "texts": ["at most 8 MiB"]}]), [])
        self.assertEqual(len(self.faults("8 MiB, then 9 MiB", given=[{"why": "a limit", "texts": ["8 MiB"]}])), 1)


if __name__ == "__main__":
    unittest.main()
