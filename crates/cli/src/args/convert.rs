use clap::Args;
use mlx_serving_convert::{Format, Pattern};
use std::path::PathBuf;

/// `convert`
#[derive(Debug, Args)]
pub struct Convert {
    /// Folder of the checkpoint, whose weights are plain
    #[arg(value_name = "FROM")]
    pub source: PathBuf,
    /// Folder to write, which must be new or empty, or what an earlier run of the same command has left
    #[arg(value_name = "TO")]
    pub out: PathBuf,
    /// Bits of a weight (2, 3, 4, 5, 6 or 8) in groups of 64, BITS:GROUP (32, 64 or 128), mxfp4, nvfp4, mxfp8 or dense
    #[arg(long, env = "MLX_SERVING_FORMAT", default_value = "4", value_name = "FORMAT", help_heading = "Weights")]
    pub format: Format,
    /// Another format of modules whose names match, such as `lm_head=8` or `*.down_proj=6`; may be given several times, and the last that matches holds
    #[arg(long, env = "MLX_SERVING_MODULE", value_parser = rule, value_name = "NAME=FORMAT", help_heading = "Weights")]
    pub module: Vec<(Pattern, Format)>,
    /// Print one JSON object at the end
    #[arg(long, env = "MLX_SERVING_JSON", help_heading = "Output")]
    pub json: bool,
}

/// A pattern of modules with their format.
fn rule(text: &str) -> Result<(Pattern, Format), String> {
    let (name, format) = text.split_once('=').ok_or("it takes NAME=FORMAT, such as lm_head=8")?;
    Ok((Pattern(name.to_owned()), format.parse()?))
}
