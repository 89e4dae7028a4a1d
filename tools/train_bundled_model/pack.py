"""Packs the trained weights as an MLX 4-bit checkpoint: config, tokenizer, chat template, card."""
import json, pathlib, shutil, sys
import mlx.core as mx, mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models import qwen2
src, out = (pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
out.mkdir(parents=True, exist_ok=True)
cfg = dict(architectures=['Qwen2ForCausalLM'], model_type='qwen2', hidden_size=256, num_hidden_layers=6, intermediate_size=704, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-06, vocab_size=4096, rope_theta=10000.0, hidden_act='silu', tie_word_embeddings=True, max_position_embeddings=2048, bos_token_id=0, eos_token_id=2, torch_dtype='bfloat16')
m = qwen2.Model(qwen2.ModelArgs.from_dict(cfg))
m.load_weights(list(mx.load(str(src / 'master.safetensors')).items()), strict=True)
m.set_dtype(mx.bfloat16)
nn.quantize(m, group_size=64, bits=4)
cfg['quantization'] = cfg['quantization_config'] = {'group_size': 64, 'bits': 4}
mx.save_safetensors(str(out / 'model.safetensors'), dict(tree_flatten(m.parameters())), metadata={'format': 'mlx'})
(out / 'config.json').write_text(json.dumps(cfg, indent=2) + '\n')
shutil.copy(src / 'tokenizer.json', out / 'tokenizer.json')
tmpl = "{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
(out / 'tokenizer_config.json').write_text(json.dumps(dict(tokenizer_class='PreTrainedTokenizerFast', bos_token=None, eos_token='<|im_end|>', pad_token='<|endoftext|>', model_max_length=2048, clean_up_tokenization_spaces=False, add_prefix_space=False, chat_template=tmpl), indent=2) + '\n')
(out / 'generation_config.json').write_text(json.dumps(dict(eos_token_id=[2, 0], pad_token_id=0, do_sample=True, temperature=0.7, top_p=0.9), indent=2) + '\n')
