# ruff: noqa: SIM905 - words in running text are easier to read and to extend than a list of literals
"""Word lists of the rubric: function words, words of instruction, common verbs, empty phrases. Data, no logic."""

from __future__ import annotations

FUNCTION_WORDS = frozenset(
    """
    a about above across after again against all along also although always am among an and another any anyone anything
    are aren't around as at away back be because been before being below between both but by can can't cannot could
    couldn't did didn't do does doesn't doing don't done down during each either else enough even ever every everyone
    everything few for from get gets getting go goes going got had has hasn't have haven't having he he'd he'll he's her
    here here's hers herself him himself his how however i i'd i'll i'm i've if in instead into is isn't it it'd it'll
    it's its itself just let let's like lots many may maybe me might mine more most much must my myself need needs
    neither never no nobody none nor not nothing now of off often on once one only onto or other others our ours out
    over own perhaps quite rather really same shall she she'd she'll she's should shouldn't since so some someone
    something sometimes soon still such than that that's the their theirs them themselves then there there's these they
    they'd they'll they're they've this those though through to together too toward towards under unless until up upon
    us use used usually very via was wasn't we we'd we'll we're we've well were weren't what what's whatever when
    whenever where wherever whether which while who whom whose why will with within without won't would wouldn't yes yet
    you you'd you'll you're you've your yours yourself
    """.split()
)
"""Words that carry grammar rather than a topic; prose has many, a heap of keywords has none."""

INSTRUCTION_WORDS = frozenset(
    """
    advice answer best briefly correct difference example examples explain few formal friendlier give good help job
    kinds list main make mean meaning means message mistakes name past phrase piece point polite question reason
    rewrite say sentence sentences short shorter simpler story sum summarize summary tell tense text thing things
    think three today tone two way ways what word words work works
    """.split()
)
"""Words that say what to do, not what it is about; saying them back adds nothing either."""

VERBS = frozenset(
    """
    add agree am are ask avoid be become begin belong bring build buy call can care carry change check choose clean
    close come consider cook could cover create cut did do does drink eat enjoy feel find fix follow forget get give go
    grow had happen has have hear help hold hope is it's i'm keep know learn leave let let's like listen live look lose
    love made make may mean meet mix might move must need offer open pack pay place plan plant play pour practice
    prevent protect provide put reach read reduce remember remove run save say see seem sell send set shall should show
    sit sleep speak spend stand start stay stop take talk taste tell thank that's there's they're think travel try turn
    use visit wait walk want was wash water we're wear were will wish work would write you're
    """.split()
)
"""Frequent verbs and contracted ones; with the endings -s, -ed and -ing they show that a response has a verb."""

EMPTY_PHRASES = (
    "absolutely!",
    "as a helpful assistant",
    "as a language model",
    "as an ai",
    "as an artificial intelligence",
    "certainly!",
    "don't hesitate to",
    "feel free to",
    "great question",
    "good question",
    "happy to help",
    "here to help",
    "how can i help you",
    "how can i assist you",
    "i am here to assist",
    "i'm here to assist",
    "i can help you with that",
    "i hope this helps",
    "i don't have personal",
    "i'd be happy to",
    "i would be happy to",
    "i understand that you",
    "i'd be glad to help",
    "i'm glad you asked",
    "i'm sorry for any confusion",
    "in conclusion,",
    "in today's world",
    "it is important to note",
    "it is important to remember",
    "it is worth noting",
    "it's essential to note",
    "it's important to note",
    "it's important to remember",
    "it's worth noting",
    "let me know if",
    "of course!",
    "overall,",
    "plays a crucial role",
    "plays a vital role",
    "please let me know",
    "sure thing",
    "sure!",
    "thank you for asking",
    "thank you for reaching out",
    "thank you for your question",
    "that's a great",
    "the answer is not a simple",
    "there are many factors",
    "when it comes to",
)
"""Phrases that say nothing about any topic, in lower case with straight apostrophes."""
