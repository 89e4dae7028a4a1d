use clap::{Args, ValueEnum};
use mlx_serving_convert::{Format, Pattern};
use std::path::PathBuf;

/// `convert`, with the flags of `mlx_lm.convert`
#[derive(Debug, Args)]
pub struct Convert {
    /// The checkpoint, whose weights are plain: a folder, or a model on the hub, ID or ID@REVISION
    #[arg(
        short = 'm',
        long,
        visible_alias = "model",
        env = "MLX_SERVING_HF_PATH",
        value_name = "MODEL",
        help_heading = "Model"
    )]
    pub hf_path: String,
    /// Quantize the weights; without it they stay as they are
    #[arg(short, long, env = "MLX_SERVING_QUANTIZE", help_heading = "Weights")]
    pub quantize: bool,
    /// Bits of a weight: 2, 3, 4, 5, 6 or 8 [default: the mode's own, of affine 4]
    #[arg(long, env = "MLX_SERVING_Q_BITS", requires = "quantize", value_name = "BITS", help_heading = "Weights")]
    pub q_bits: Option<u8>,
    /// Weights that share a scale: 32, 64 or 128 [default: the mode's own, of affine 64]
    #[arg(long, env = "MLX_SERVING_Q_GROUP_SIZE", requires = "quantize", value_name = "N", help_heading = "Weights")]
    pub q_group_size: Option<u16>,
    /// affine, mxfp4, nvfp4 or mxfp8
    #[arg(
        long,
        env = "MLX_SERVING_Q_MODE",
        requires = "quantize",
        value_enum,
        default_value = "affine",
        value_name = "MODE",
        hide_possible_values = true,
        help_heading = "Weights"
    )]
    pub q_mode: Mode,
    /// Another format of modules whose names match: BITS, BITS:GROUP, mxfp4, nvfp4, mxfp8 or dense, as in `lm_head=8` or `*.down_proj=6:32`; may be given several times, and the last that matches holds
    #[arg(long, env = "MLX_SERVING_Q_MODULE", value_parser = rule, requires = "quantize", value_name = "NAME=FORMAT", help_heading = "Weights")]
    pub q_module: Vec<(Pattern, Format)>,
    /// Folder to write, which must be new or empty, or what an earlier run of the same command has left
    #[arg(
        short = 'o',
        long,
        visible_alias = "output",
        env = "MLX_SERVING_MLX_PATH",
        default_value = "mlx_model",
        value_name = "DIR",
        help_heading = "Output"
    )]
    pub mlx_path: PathBuf,
    /// Print one JSON object at the end
    #[arg(long, env = "MLX_SERVING_JSON", help_heading = "Output")]
    pub json: bool,
}

/// A way to quantize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Integers under a scale and a bias.
    Affine,
    /// Floats of 4 bits under powers of two.
    Mxfp4,
    /// Floats of 4 bits under floats of 8 bits.
    Nvfp4,
    /// Floats of 8 bits under powers of two.
    Mxfp8,
}

impl Convert {
    /// Format of the modules that no rule names.
    pub(crate) fn format(&self) -> Result<Format, String> {
        let of_mode = |format: Format, name: &str| {
            let (bits, group) = format.codes().unwrap_or_default();
            let (asked_bits, asked_group) = (self.q_bits.map(usize::from), self.q_group_size.map(usize::from));
            match asked_bits.is_none_or(|asked| asked == bits) && asked_group.is_none_or(|asked| asked == group) {
                true => Ok(format),
                false => Err(format!("--q-mode {name} has {bits} bits in groups of {group}, and no others")),
            }
        };
        match self.q_mode {
            _ if !self.quantize => Ok(Format::Dense),
            Mode::Affine => {
                format!("{}:{}", self.q_bits.unwrap_or(4), self.q_group_size.unwrap_or(64)).parse().map_err(|_| {
                    "affine weights have 2, 3, 4, 5, 6 or 8 bits (--q-bits) in groups of 32, 64 or 128 (--q-group-size)"
                        .to_owned()
                })
            }
            Mode::Mxfp4 => of_mode(Format::Mxfp4, "mxfp4"),
            Mode::Nvfp4 => of_mode(Format::Nvfp4, "nvfp4"),
            Mode::Mxfp8 => of_mode(Format::Mxfp8, "mxfp8"),
        }
    }
}

/// A pattern of modules with their format.
fn rule(text: &str) -> Result<(Pattern, Format), String> {
    let (name, format) = text.split_once('=').ok_or("it takes NAME=FORMAT, such as lm_head=8")?;
    Ok((Pattern(name.to_owned()), format.parse()?))
}
