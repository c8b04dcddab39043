//! `springtide image`: the cluster's image store. It needs no serving process.

use std::process::ExitCode;

use anyhow::Context;
use local_runtime::ImageStore;
use local_runtime::image::ImageInfo;

use crate::cli::{ImageArguments, ImageCommand, Output};
use crate::data_dir::DataDir;
use crate::printer::{self, Step};
use crate::{host, sample};

pub async fn run(arguments: ImageArguments) -> anyhow::Result<ExitCode> {
    let ImageArguments { cluster, command } = arguments;
    host::check()?;
    let data_dir = DataDir::new(&cluster.data_dir);
    // A directory that nobody serves yet is made ready, so that images can be there before the first `up`.
    if !data_dir.is_locked() {
        data_dir.open()?;
    }
    let store = ImageStore::open(&data_dir.runtime())
        .await
        .context("open the image store")?;
    match command {
        ImageCommand::Load { archive } => {
            let step = Step::start(format!("loading {}", archive.display()));
            let images = store.load(&archive).await?;
            let names: Vec<String> = images.iter().flat_map(names).collect();
            step.done(names.join(", "));
        }
        ImageCommand::BuildSample => {
            let step = Step::start("building the sample shop's image from this program");
            let image = sample::image::build(&store).await?;
            step.done(names(&image).join(", "));
        }
        ImageCommand::List { output } => {
            let images = store.list().await?;
            match output {
                Output::Json => printer::data(serde_json::to_string_pretty(&images)?),
                Output::Text => printer::data(table(&images)),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn names(image: &ImageInfo) -> Vec<String> {
    if image.tags.is_empty() {
        vec![image.id.clone()]
    } else {
        image.tags.clone()
    }
}

fn table(images: &[ImageInfo]) -> String {
    let mut text = format!("{:<60} {:<20} {:>10}", "IMAGE", "ID", "SIZE");
    for image in images {
        let id: String = image
            .id
            .trim_start_matches("sha256:")
            .chars()
            .take(12)
            .collect();
        for name in names(image) {
            text += &format!(
                "\n{name:<60} {id:<20} {:>7} MB",
                image.size_bytes / 1_000_000
            );
        }
    }
    text
}
