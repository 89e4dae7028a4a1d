# Filled in by packaging/archives.
class MlxServing < Formula
  desc "Serves language models in MLX format over an OpenAI-compatible API"
  homepage "@repository@"
  version "@version@"
  license any_of: ["MIT", "Apache-2.0"]

  on_macos do
    depends_on arch: :arm64
    url "@macos-arm64.url@"
    sha256 "@macos-arm64.sha256@"
  end

  on_linux do
    on_intel do
      url "@linux-x64.url@"
      sha256 "@linux-x64.sha256@"
    end
    on_arm do
      url "@linux-arm64.url@"
      sha256 "@linux-arm64.sha256@"
    end
  end

  def install
    bin.install "bin/mlx-serving"
    share.install Dir["share/*"]
    # Keeps a file that was changed.
    (etc/"mlx-serving").install "config/runtime.yaml"
  end

  service do
    run [opt_bin/"mlx-serving", "serve", "--config", etc/"mlx-serving/runtime.yaml"]
    keep_alive crashed: true
    error_log_path var/"log/mlx-serving.log"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/mlx-serving --version")
    answer = shell_output("#{bin}/mlx-serving generate --prompt 'What Is Ownership?' --max-tokens 16 --temperature 0")
    assert_match "Ownership is a set of rules", answer
  end
end
