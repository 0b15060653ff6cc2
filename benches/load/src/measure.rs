//! The whole run: scenarios one after another, then the report.

use std::{env, fs, path::PathBuf};

use chrono::{SecondsFormat, Utc};
use clap::ValueEnum as _;

use crate::{
    bench::{Bench, SETTINGS},
    cli::Measure,
    error::LoadError,
    machine::Machine,
    plot,
    results::{self, Results},
    scale::Scale,
    scenario::Scenario,
    table,
};

pub(crate) async fn run(asked: Measure) -> Result<(), LoadError> {
    let own = env::current_exe().map_err(LoadError::io("this program's path"))?;
    let programs = own.parent().map(PathBuf::from).unwrap_or_default();
    let server = asked.server.unwrap_or_else(|| programs.join("idol-router"));
    let server = fs::canonicalize(&server).unwrap_or(server);
    let output = asked.output.unwrap_or_else(|| programs.join("../load"));
    let (scale_name, mut scale) = match asked.quick {
        true => ("quick", Scale::quick()),
        false => ("full", Scale::full()),
    };
    scale.rounds = asked.rounds.map_or(scale.rounds, usize::from);
    scale.turns = asked.turns.map_or(scale.turns, u64::from);
    scale.window = asked.seconds.map_or(scale.window, f64::from);
    let bench = Bench::new(own, server, output.clone(), scale)?;
    let output = fs::canonicalize(&output).unwrap_or(output);
    let machine = Machine::read(bench.server_program());
    println!("{}", machine.lines());
    let settings: Vec<String> = SETTINGS
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    println!("server with {}\n", settings.join(" "));
    // A quick run says little about a full one.
    let before = results::previous(&output).filter(|before| before.scale == scale_name);
    let scenarios = match &*asked.only {
        [] => Scenario::value_variants(),
        some => some,
    };
    let mut figures = Vec::new();
    for scenario in scenarios {
        eprintln!("{} …", scenario.name());
        let found = scenario.run(&bench).await?;
        println!("{}", table::render(&found, before.as_ref()));
        figures.extend(found);
    }
    let results = Results {
        at: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        scale: scale_name.to_owned(),
        sizes: serde_json::to_value(&bench.scale)?,
        machine,
        settings: SETTINGS
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        figures,
    };
    results::keep(&output, &results, before.as_ref())?;
    let report = output.join("report.html");
    let page = plot::page(&results, before.as_ref())?;
    fs::write(&report, page).map_err(LoadError::io(report.display().to_string()))?;
    let judged: Vec<bool> = results
        .figures
        .iter()
        .filter_map(|it| it.is_met())
        .collect();
    let met = judged.iter().filter(|met| **met).count();
    println!(
        "{met} of {} targets met; {}",
        judged.len(),
        report.display()
    );
    Ok(())
}
