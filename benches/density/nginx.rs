//! nginx with its RTMP module: what an ffmpeg publishes to it, it pushes to as many receivers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::peer::ffmpeg_arguments;
use crate::plan::{AGAINST_LO, Options, local};
use crate::{Result, sys};

/// A running nginx; `None` without it or its module.
pub(crate) fn start(options: &Options, cpus: &[usize]) -> Result<Option<(Child, String)>> {
    let (Some(tcp), Some(module), Ok(version)) =
        (&options.tcp, module(), Command::new("nginx").arg("-v").output())
    else {
        return Ok(None);
    };
    let version = String::from_utf8_lossy(&version.stderr).trim().to_owned();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("density");
    fs::create_dir_all(&folder)?;
    let pushes: String = (0..options.total_outputs())
        .map(|place| format!("            push {};\n", tcp.destination(AGAINST_LO, place)))
        .collect();
    let config = format!(
        "load_module {};\ndaemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.log warn;\n\
         events {{ worker_connections 4096; }}\n\
         rtmp {{\n    server {{\n        listen {};\n\
         \x20       application {READS} {{ live on; }}\n\
         \x20       application {PUSHES} {{\n            live on;\n{pushes}        }}\n    }}\n}}\n",
        module.display(),
        local(PORT),
        folder = folder.display(),
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config)?;
    let log = File::create(folder.join("nginx.out"))?;
    let mut command = Command::new("nginx");
    command.arg("-e").arg(folder.join("nginx.log")).arg("-p").arg(&folder).arg("-c").arg(&file);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    sys::bind_child(&mut command, cpus);
    Ok(Some((command.spawn()?, version.trim_start_matches("nginx version: ").to_owned())))
}

/// An ffmpeg that publishes the source to an application.
pub(crate) fn feed(options: &Options, application: &str, cpus: &[usize]) -> Result<Child> {
    let input = options.against_inputs().first().copied().unwrap_or(local(0));
    let url = format!("rtmp://{}/{application}/stream", local(PORT));
    let log = File::create(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("density").join("feeder.log"))?;
    let mut command = Command::new("ffmpeg");
    command.args(ffmpeg_arguments(
        &format!("udp://{input}?fifo_size=20000&overrun_nonfatal=1"),
        "-map 0",
        "flv",
        &url,
    ));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    sys::bind_child(&mut command, cpus);
    Ok(command.spawn()?)
}

fn module() -> Option<PathBuf> {
    let places = ["/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules"];
    places.iter().map(|place| Path::new(place).join("ngx_rtmp_module.so")).find(|path| path.exists())
}

/// The application that pushes nowhere, to see what reading costs.
pub(crate) const READS: &str = "read";
/// The one that pushes.
pub(crate) const PUSHES: &str = "push";
const PORT: u16 = 5902;
