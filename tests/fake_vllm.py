"""vLLM's dialect as vLLM 0.32 answers it, without a model: a response counts up from its prompt's last token."""

from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse

VOCABULARY = 256


def create_fake_vllm(*, logprobs_mode: str = "processed_logprobs") -> FastAPI:
    """Its state: `app.state.adapters`, path by name; `app.state.bodies`, of all completions."""
    app = FastAPI()
    adapters: dict[str, str] = {}
    app.state.adapters, app.state.bodies = adapters, []

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        cards = [{"id": "base", "object": "model", "parent": None, "max_model_len": 128}]
        return {"object": "list", "data": cards + [{"id": name, "parent": "base"} for name in adapters]}

    @app.post("/v1/load_lora_adapter")
    async def load(body: dict[str, str]) -> Any:
        if body["lora_name"] in adapters:
            return error(400, f"The lora adapter '{body['lora_name']}' has already been loaded. If you want ...")
        if "/absent/" in body["lora_path"]:
            return error(404, f"Loading lora {body['lora_name']} failed: No adapter found for {body['lora_path']}")
        adapters[body["lora_name"]] = body["lora_path"]
        return PlainTextResponse("Success: LoRA adapter added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload(body: dict[str, str]) -> Any:
        if adapters.pop(body["lora_name"], None) is None:
            return error(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
        return PlainTextResponse("Success: LoRA adapter removed successfully.")

    @app.post("/v1/completions")
    async def complete(body: dict[str, Any]) -> Any:
        app.state.bodies.append(body)
        if body["model"] not in ("base", *adapters):
            return error(404, f"The model `{body['model']}` does not exist.")
        # An adapter of a job `mismatched` loads and changes nothing.
        changed = body["model"] != "base" and "/mismatched/" not in adapters[body["model"]]
        filtered = body["top_k"] == 1 and logprobs_mode == "processed_logprobs"
        return answer(body, 0.0 if filtered else -0.7 if changed else -0.5)

    return app


def error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": "Error", "param": None, "code": status}}, status)


def answer(body: dict[str, Any], logprob: float) -> dict[str, Any]:
    prompt, count = body["prompt"], body["max_tokens"]
    ids = [(prompt[-1] + 1 + i) % VOCABULARY for i in range(count)]
    # As many likeliest tokens as asked for, and the sampled one besides; a filter bans the last.
    top = [
        {f"token_id:{token}": logprob} | {f"token_id:{n}": -1.0 - n if n else -9999.0 for n in range(body["logprobs"])}
        for token in ids
    ]
    seen = None if body["prompt_logprobs"] is None else [None, *({str(t): {"logprob": -2.0}} for t in prompt[1:])]
    choice = {
        "index": 0,
        "text": "",
        "finish_reason": "length",
        "stop_reason": None,
        "token_ids": ids,
        "prompt_token_ids": prompt,
        "prompt_logprobs": seen,
        "logprobs": {
            "tokens": [f"token_id:{token}" for token in ids],
            "token_logprobs": [logprob] * count,
            "top_logprobs": top,
            "text_offset": [0] * count,
        },
    }
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"], "choices": [choice]}
