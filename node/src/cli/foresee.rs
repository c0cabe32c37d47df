//! `medic get predictions` and `medic get scores`.

use medic_proto::v1 as pb;
use serde::Serialize;

use super::{
    args::{Format, GetArgs},
    error::CliError,
    list::pages,
    out::Out,
    render::{Style, foresee},
    session::Session,
};

/// What programs get: what is missing stands beside what is known.
#[derive(Serialize)]
struct Answer<T> {
    #[serde(flatten)]
    known: T,
    /// Not empty: the answer is partial.
    gaps: Vec<pb::Gap>,
}

#[derive(Serialize)]
struct Listed {
    predictions: Vec<pb::Prediction>,
}

#[derive(Serialize)]
struct Scored {
    scores: Vec<pb::PredictionScore>,
}

pub(super) async fn predictions(
    session: &Session,
    args: &GetArgs,
    (out, now, style): (&Out, u64, Style),
) -> Result<(), CliError> {
    let gaps = std::cell::RefCell::new(Vec::new());
    let (predictions, more) = pages(args.limit, |page_size, page_token| {
        let request = pb::ListPredictionsRequest {
            tenant: session.tenant(),
            matchers: args.matchers.clone(),
            page_size,
            page_token,
        };
        let gaps = &gaps;
        async move {
            let response = session
                .ask(request, |api, request| async move { api.predictions().list(request).await })
                .await?;
            // Those of the last page are the newest.
            *gaps.borrow_mut() = response.gaps;
            Ok((response.predictions, response.next_page_token))
        }
    })
    .await?;
    let answer = Answer { known: Listed { predictions }, gaps: gaps.into_inner() };
    if args.connect.output.output == Format::Jsonl {
        out.list(&answer.known.predictions, |_| String::new())?;
    } else {
        out.value(&answer, |answer| foresee::predictions(&answer.known.predictions, now, style))?;
    }
    if more {
        out.note("there are more: raise --limit, or narrow with -l");
    }
    tell_gaps(out, args, &answer.gaps);
    Ok(())
}

pub(super) async fn scores(
    session: &Session,
    args: &GetArgs,
    (out, style): (&Out, Style),
) -> Result<(), CliError> {
    if !args.matchers.is_empty() {
        return Err(CliError::Usage("scores take no matchers; --tenant narrows them".to_owned()));
    }
    let request = pb::ScorePredictionsRequest { tenant: session.tenant() };
    let response = session
        .ask(request, |api, request| async move { api.predictions().score(request).await })
        .await?;
    let answer = Answer { known: Scored { scores: response.scores }, gaps: response.gaps };
    if args.connect.output.output == Format::Jsonl {
        out.list(&answer.known.scores, |_| String::new())?;
    } else {
        out.value(&answer, |answer| foresee::scores(&answer.known.scores, style))?;
    }
    tell_gaps(out, args, &answer.gaps);
    Ok(())
}

/// Where the gaps are not in the document, they are beside it.
pub(super) fn tell_gaps(out: &Out, args: &GetArgs, gaps: &[pb::Gap]) {
    if matches!(args.connect.output.output, Format::Table | Format::Jsonl) {
        gaps.iter().for_each(|gap| out.note(&foresee::gap(gap)));
    }
}
