//! Parts of checkpoints that compute no text of the next token, and are left out.

use std::collections::BTreeMap;

/// Their modules: towers and what brings their values to the model of text, and heads that guess tokens beyond the next.
const PARTS: [&str; 12] = [
    "audio_tower",
    "embed_audio",
    "embed_vision",
    "mm_projector",
    "mtp",
    "multi_modal_projector",
    "patch_merger",
    "vision_embedder",
    "vision_encoder",
    "vision_model",
    "vision_tower",
    "visual",
];

/// Takes the tensors of such parts out; the sentence that names the parts and counts their tensors, if there are any.
pub(crate) fn leave_out<T>(tensors: &mut BTreeMap<String, T>) -> Option<String> {
    let mut counts = BTreeMap::<&str, usize>::new();
    tensors.retain(|name, _| match PARTS.iter().find(|part| name.split('.').any(|module| module == **part)) {
        None => true,
        Some(part) => {
            *counts.entry(part).or_default() += 1;
            false
        }
    });
    let counted: Vec<String> = counts.iter().map(|(part, count)| format!("{part} ({count} tensors)")).collect();
    (!counted.is_empty())
        .then(|| format!("only text is computed here; left out of the weights: {}", counted.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_by_their_modules_and_text_stays() {
        let names = [
            "language_model.model.layers.0.mlp.up_proj.weight",
            "language_model.model.visually.weight",
            "multi_modal_projector.patch_merger.weight",
            "model.vision_tower.a.weight",
            "model.vision_tower.b.weight",
            "mtp.fc.weight",
        ];
        let mut tensors: BTreeMap<String, ()> = names.map(|name| (name.to_owned(), ())).into();
        let told = leave_out(&mut tensors).unwrap_or_default();
        assert!(
            told.ends_with(": mtp (1 tensors), multi_modal_projector (1 tensors), vision_tower (2 tensors)"),
            "{told}"
        );
        assert!(tensors.keys().eq(&names[..2]), "{tensors:?}");
        assert_eq!(leave_out(&mut tensors), None);
    }
}
