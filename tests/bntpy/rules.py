# SPDX-License-Identifier: MIT
"""All rules over a file in memory (but the compilation of patterns, R26: see rules_text)."""
import chat
import container
import rules_file
import rules_tensors
import rules_text
import sampling


def issues(data):
    """Yield (rule, message) for all that is broken and can be judged, cheapest rules first."""
    sections = yield from rules_file.check(data)
    if sections is None:
        return
    bodies = {kind: body for kind, (_, body) in sections.items() if body is not None}
    version = container.header(data).version_major
    hyper = (yield from rules_tensors.check_hyper(bodies['HYPR'], version)) if 'HYPR' in bodies else None
    if hyper is not None:
        yield from rules_file.check_wanted(sections, hyper)
    tensors = (yield from rules_tensors.check_tensors(sections, hyper, version)) if 'TENS' in bodies else None
    if 'TOKN' in bodies:
        yield from rules_text.check_tokenizer(bodies['TOKN'], hyper and hyper['vocab_size'])
    for kind in chat.FLAGS:
        if kind in bodies:
            yield from chat.check(kind, bodies[kind], hyper and hyper['vocab_size'], sections)
    if 'SAMP' in bodies:
        yield from sampling.check(bodies['SAMP'])
    if 'PROV' in bodies:
        yield from rules_text.check_provenance(bodies['PROV'], tensors)


def verify(data):
    """The list of (rule, message); empty for a good file."""
    return list(issues(data))
