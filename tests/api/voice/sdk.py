"""Speaks and listens as applications do that were written for OpenAI.

Arguments: the server's address, and a file. Prints what it got, as JSON.
"""

import base64
import json
import sys

import openai

address, path = sys.argv[1:]
client = openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)
told = {}

speech = {"model": "gpt-4o-mini-tts", "voice": "coral", "input": "Hello there."}
whole = client.audio.speech.create(**speech)
told["whole"] = base64.b64encode(whole.read()).decode()
with client.audio.speech.with_streaming_response.create(**speech, response_format="pcm") as response:
    told["streamed"] = base64.b64encode(b"".join(response.iter_bytes())).decode()
with client.audio.speech.with_streaming_response.create(
    **speech, response_format="wav", stream_format="sse"
) as response:
    events = [json.loads(line[6:]) for line in response.iter_lines() if line]
told["events"] = [
    b"".join(base64.b64decode(event.get("audio", "")) for event in events).hex(),
    events[-1]["type"],
]


def transcribe(model="whisper-1", **more):
    with open(path, "rb") as file:
        return client.audio.transcriptions.create(model=model, file=file, **more)


told["json"] = transcribe(language="de", prompt="Idols.", temperature=0.5).text
told["text"] = transcribe(response_format="text")
verbose = transcribe(
    response_format="verbose_json", timestamp_granularities=["word", "segment"]
)
told["deltas"] = [
    [event.type, event.delta if event.type == "transcript.text.delta" else event.text]
    for event in transcribe(model="gpt-4o-mini-transcribe", stream=True)
]
told["verbose_json"] = [verbose.text, verbose.language, verbose.segments[0].start]


def error(call):
    try:
        call()
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.type, error.param, error.code]
    return None


told["errors"] = [
    error(lambda: client.audio.speech.create(**speech, response_format="flac")),
    error(lambda: client.audio.speech.create(**{**speech, "input": ""})),
    # The upstream is told what to answer with, in this order.
    error(transcribe),
    error(transcribe),
    error(transcribe),
    error(transcribe),
    error(lambda: client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", b"short"))),
]
json.dump(told, sys.stdout)
